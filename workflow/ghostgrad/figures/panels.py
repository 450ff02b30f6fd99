"""Figures with their axes, the note in their corner, and the placeholder of what was not run."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ghostgrad.analysis.results import Results, data_title
from ghostgrad.figures.style import GREY
from ghostgrad.registry.artifact import Artifact
from ghostgrad.registry.scaling import describe_artifact_scaling

LIGHT_GREY = "#cccccc"  # lines that only guide the eye
MAX_NAMED_CELLS = 6  # missing cells are counted where there are more


def new_grid(
    rows: int, columns: int, width: float, height: float, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches and its axes, an array of shape (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    # Labels are placed by the size of rendered text, which only a canvas knows. pyplot would keep
    # every figure alive in its global list.
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def new_panels(
    count: int = 1, width: float = 4.2, height: float = 2.9
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side that share their y axis. `width` in inches is that
    of a single panel; several have a fixed width each."""
    total_width = width if count == 1 else 2.5 * count + 0.6
    figure, axes = new_grid(1, count, total_width, height, sharey=True)
    return figure, list(axes[0])


def set_log_y(axes: Axes) -> None:
    """A logarithmic y axis whose minor ticks have no numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def write_in_panel(axes: Axes, text: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", color=GREY, transform=axes.transAxes)


def scale_note(results: Results) -> str:
    """The scale, what it changes in the paper's spec, and which cells have not been run.

    Cells may change the same key differently: their values are joined by a slash, in the order of
    the cells."""
    changed: dict[str, dict[str, None]] = {}  # key -> its values, as an ordered set
    for cell in results.measured_cells:
        experiment = results.registry.experiments[cell.experiment]
        for key, value in experiment.scaled(cell.variant, results.scale).items():
            changed.setdefault(key, {})[_value_text(key, value)] = None
    text = f"scale {results.scale}"
    if changed:
        # The data set first: it says most about how far the scale is from the paper.
        keys = sorted(changed, key=lambda key: key != "data")
        text += ", unlike the paper: " + ", ".join(
            f"{key} {'/'.join(changed[key])}" for key in keys
        )
    cells = results.artifact.cells
    missing = [cell.label for cell in cells if cell not in results.measured_cells]
    if len(missing) > MAX_NAMED_CELLS:
        text += f"; not run: {len(missing)} of {len(cells)} cells"
    elif missing:
        text += f"; not run: {', '.join(missing)}"
    return text


def _value_text(key: str, value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    if key == "data":
        return data_title(str(value))
    return str(value)


def add_scale_note(figure: Figure, results: Results) -> None:
    """Write above the figure what was measured where the scale changes more than repeats and seeds,
    and `scale_note` below it, in two lines at most; nothing where an artifact needs no run."""
    if not results.artifact.cells:
        return
    cells = results.measured_cells
    scaling = describe_artifact_scaling(results.registry, cells, results.scale)
    if scaling:
        width = int(figure.get_figwidth() * 17)  # about 17 letters of 7.5 pt fit in an inch
        figure.suptitle(textwrap.fill(scaling, width), fontsize=7.5, color=GREY)
    characters = int(figure.get_figwidth() * 21)  # about 21 letters of 6 pt fit in an inch
    lines = textwrap.fill(scale_note(results), characters, max_lines=2, placeholder=" …")
    figure.supxlabel(lines, fontsize=6, color=GREY, x=0.99, ha="right")


def placeholder(artifact: Artifact, why_not: str) -> Figure:
    """An empty frame that says which artifact belongs here and why it shows nothing."""
    figure, (axes,) = new_panels()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#bbbbbb")
    title = "\n".join(textwrap.wrap(artifact.title, 48))
    label = f"{artifact.id}\n{title}"
    axes.text(0.5, 0.62, label, ha="center", va="center", transform=axes.transAxes)
    reason = f"not run ({why_not})"
    axes.text(0.5, 0.32, reason, ha="center", color=GREY, transform=axes.transAxes)
    return figure
