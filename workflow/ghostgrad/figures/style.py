"""One style for all figures: log axes, bands, direct labels, the paper's numbers hollow, readable in grey."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ghostgrad.analysis.results import Results, data_title
from ghostgrad.files import write_atomically
from ghostgrad.registry.artifact import Artifact

DATA_COLUMNS = ["panel", "label", "x", "mean", "se", "low", "high", "n"]
GREY = "#555555"
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "path.simplify": False,
}

# One colour and dash per method, in all papers. The colours differ in lightness too (Okabe and Ito), the dashes carry
# the distinction where a page is printed in grey.
BLACK, BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#111111", "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00"
SOLID, DASHED, DOTTED, DASHDOT = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
LOOKS = {
    "PlainNet": (VERMILION, SOLID),
    "ResNet": (BLUE, DASHED),
    "SeqNet": (GREEN, SOLID),
    "SeqNet101": (GREEN, DASHDOT),
    "Skip-SeqNet": (ORANGE, DASHED),
    "SeqNet50 L-Init": (BLACK, DASHDOT),
    "SeqNet50 untied": (PURPLE, DOTTED),
    "ReLU + BN": (VERMILION, SOLID),
    "ReLU": (VERMILION, DOTTED),
    "SELU + BN": (BLUE, SOLID),
    "SELU": (BLUE, DOTTED),
    "Tanh + BN": (GREEN, SOLID),
    "Tanh": (GREEN, DOTTED),
    "R-Init": (BLUE, SOLID),
    "O-Init": (PURPLE, DASHED),
    "L-Init": (GREEN, DASHDOT),
    "untied": (VERMILION, DOTTED),
    "Model-1": (VERMILION, SOLID),
    "Model-2": (PURPLE, DASHED),
    "Model-3": (BLUE, DOTTED),
    "ResNet101": (BLUE, DASHDOT),
    "MLP-51": (ORANGE, SOLID),
    "MLP-51, LN + ReLU": (ORANGE, DASHED),
    "MLP-51, LN + GELU": (ORANGE, DOTTED),
    "VGG-like-51": (BLACK, DASHDOT),
    "ViT-B/16": (PURPLE, SOLID),
    "Swin-T": (GREEN, SOLID),
    "LeakyReLU": (ORANGE, DASHED),
    "ELU": (PURPLE, DASHED),
    "GELU": (GREEN, SOLID),
    "Swish": (BLACK, SOLID),
    "none": (BLACK, DASHDOT),
    "DropOut": (PURPLE, DOTTED),
    "SGD": (BLACK, SOLID),
    "Nesterov": (BLACK, DOTTED),
    "WarmUp": (BLUE, SOLID),
    "WarmUp + Nesterov": (BLUE, DOTTED),
    "LARS": (ORANGE, SOLID),
    "LARS + WarmUp": (ORANGE, DASHED),
    "CLARS": (GREEN, SOLID),
    "LALC": (VERMILION, SOLID),
    "LALC + WarmUp": (VERMILION, DASHED),
    "LALC + Nesterov": (VERMILION, DOTTED),
    "LALC, norm of the gradient": (PURPLE, SOLID),
    "LALC, BN not clipped": (PURPLE, DASHED),
    "LALC, accumulated": (PURPLE, DOTTED),
    "LALC, 3x3 stem": (PURPLE, DASHDOT),
    "LARC": (GREEN, DASHED),
    "Xavier": (BLUE, SOLID),
    "He": (VERMILION, DASHED),
}
SHADES = [("#56B4E9", SOLID), (BLUE, DASHED), (BLACK, SOLID), (GREY, DOTTED)]  # positions in time
SPARE = [(ORANGE, SOLID), (BLACK, DASHDOT), (PURPLE, DOTTED), (GREEN, DASHED), (BLACK, SOLID)]


def look(label: str, index: int = 0) -> tuple[str, object]:
    """Colour and dash of a method; the longest known name that the label starts with decides."""
    known = [name for name in LOOKS if label.startswith(name)]
    return LOOKS[max(known, key=len)] if known else SPARE[index % len(SPARE)]


def use(salt: str) -> None:
    """Set the style; `salt` makes the ids inside an SVG the same at every build."""
    mpl.rcdefaults()
    mpl.rcParams.update(RC)
    mpl.rcParams["svg.hashsalt"] = salt


def sheet(rows: int, columns: int, width: float, height: float, **shared: bool) -> tuple[Figure, np.ndarray]:
    """A figure with a grid (rows, columns) of axes; `shared` as matplotlib's sharex and sharey."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def panels(count: int = 1, width: float = 4.2, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side that share their y axis."""
    figure, axes = sheet(1, count, width if count == 1 else 2.5 * count + 0.6, height, sharey=True)
    return figure, list(axes[0])


def step(position: float, found: pd.DataFrame) -> str:
    """The paper's step, and the one it shrank to at this scale."""
    here = "" if found.empty or found["step"].iloc[0] == position else f" (here {found['step'].iloc[0]:,})"
    return f"step {position:,.0f}{here}"


def band(label: str, x: np.ndarray, values: np.ndarray, levels: tuple[float, float] = (0.05, 0.95)) -> pd.DataFrame:
    """The drawn data of a curve: mean over repeats of `values` (repeats, places), its standard error, and the band
    between two quantiles, which holds 90 % of them unless other levels are given; 0 and 1 are their range."""
    low, high = np.quantile(values, levels, axis=0)
    data = {"panel": "", "label": label, "x": x, "mean": values.mean(0), "low": low, "high": high, "n": len(values)}
    data["se"] = values.std(0, ddof=1) / len(values) ** 0.5
    return pd.DataFrame(data, columns=DATA_COLUMNS)


def over_seeds(frame: pd.DataFrame, x: str, y: str, panel: str, label: str) -> pd.DataFrame:
    """The drawn data of a curve: mean over seeds with their range as its band."""
    data = frame.groupby(x)[y].agg(["mean", "sem", "min", "max", "count"]).reset_index()
    data.columns = ["x", "mean", "se", "low", "high", "n"]
    return data.assign(panel=panel, label=label)[DATA_COLUMNS]


def curve(axes: Axes, frame: pd.DataFrame, label: str, index: int = 0, marker: str | None = None) -> None:
    """A mean with its band from columns x, mean, low, high; a second curve of one look is drawn thinner."""
    colour, dash = look(label, index)
    twins = sum(line.get_color() == colour and line.get_gid() == str(dash) for line in axes.lines)
    axes.fill_between(frame["x"], frame["low"], frame["high"], color=colour, alpha=0.15, linewidth=0)
    width = mpl.rcParams["lines.linewidth"] * 0.55**twins
    style = {"color": colour, "linestyle": dash, "linewidth": width, "marker": marker, "markersize": 3}
    axes.plot(frame["x"], frame["mean"], gid=str(dash), **style)


def by_epoch(results: Results, parts: Mapping[str, str], logarithmic: str = "") -> tuple[Figure, pd.DataFrame]:
    """A panel per column of series.csv in `parts`, named by its value, against the epoch; a curve per cell, mean and
    range over seeds."""
    figure, grid = sheet(1, len(parts), width=4.2 * len(parts), height=3.2)
    frames = []
    for axes, (quantity, title) in zip(grid[0], parts.items(), strict=True):
        places = []
        for index, cell in enumerate(results.measured_cells):
            frame = over_seeds(results.frame(cell, "series.csv"), "epoch", quantity, title, cell.label)
            curve(axes, frame, cell.label, index)
            frames.append(frame)
            places.append((cell.label, frame["x"].iloc[-1], frame["mean"].iloc[-1]))
        axes.set(xlabel="epoch", ylabel=title)
        if quantity == logarithmic:
            log_y(axes)
        direct_labels(axes, places, left=False)
    return figure, pd.concat(frames, ignore_index=True)


def hollow(axes: Axes, x: np.ndarray, y: np.ndarray, look: tuple = (BLACK, SOLID), legend: str | None = None) -> None:
    """The paper's numbers, in the colour and dash of what they belong to."""
    marker = {"marker": "o", "markerfacecolor": "white", "markersize": 3.6, "markeredgewidth": 0.8}
    axes.plot(x, y, color=look[0], linestyle=look[1], linewidth=0.6, label=legend, **marker)


def direct_labels(axes: Axes, places: Sequence[tuple[str, float, float]], left: bool) -> None:
    """Names beside the ends of curves, on the side where they end, pushed apart where they would touch.

    `places` are (label, x, y) in data coordinates. The axis is widened so that the names fit inside; call it last.
    """
    figure = axes.figure
    notes = [
        axes.annotate(
            label,
            (x, y),
            (-4 if left else 4, 0),
            textcoords="offset points",
            color=look(label, index)[0],
            ha="right" if left else "left",
            va="center",
            annotation_clip=False,
        )
        for index, (label, x, y) in enumerate(places)
    ]
    figure.draw_without_rendering()
    widest = max(note.get_window_extent().width for note in notes) + 8 * figure.dpi / 72
    low, high = axes.get_xlim()
    share = widest / (axes.bbox.width - widest)
    axes.set_xlim((low - share * (high - low), high) if left else (low, high + share * (high - low)))
    figure.draw_without_rendering()

    step = 1.15 * mpl.rcParams["font.size"] * figure.dpi / 72
    at = np.array([axes.transData.transform((x, y)) for _, x, y in places])
    for x in np.unique(at[:, 0]):
        column = [i for i in np.argsort(at[:, 1]) if at[i, 0] == x]
        apart = _apart(at[column, 1], step, axes.bbox.y0 + step / 2, axes.bbox.y1 - step / 2)
        for i, y in zip(column, apart, strict=True):
            notes[i].xyann = (notes[i].xyann[0], (y - at[i, 1]) * 72 / figure.dpi)


def _apart(y: np.ndarray, step: float, bottom: float, top: float) -> np.ndarray:
    """Sorted positions moved as little as need be, so that neighbours are `step` apart, within bottom and top."""
    y = np.array(y, dtype=float)
    for _ in range(200):
        tight = np.flatnonzero(np.diff(y) < step - 1e-6)
        if not len(tight):
            break
        for i in tight:
            shift = (step - (y[i + 1] - y[i])) / 2
            y[i] -= shift
            y[i + 1] += shift
    return y + max(0.0, bottom - y[0]) - max(0.0, y[-1] - top)


def log_y(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def note(figure: Figure, results: Results) -> None:
    """In the corner the scale, what it changes of the paper's spec (in the cells' order, where they differ), and which
    cells have not been run; nothing on what needs no run."""
    if not results.artifact.cells:
        return
    experiments = results.registry.experiments
    changed: dict[str, dict[str, None]] = {}
    for cell in results.measured_cells:
        for key, value in experiments[cell.experiment].scaled(cell.variant, results.scale).items():
            text = (
                "+".join(value) or "none"
                if isinstance(value, list)
                else data_title(value)
                if key == "data"
                else str(value)
            )
            changed.setdefault(key, {})[text] = None
    missing = [cell.label for cell in results.artifact.cells if cell not in results.measured_cells]
    text = f"scale {results.scale}"
    if changed:
        text += ", not the paper's: " + ", ".join(
            f"{key} {'/'.join(changed[key])}" for key in sorted(changed, key=lambda key: key != "data")
        )
    if len(missing) > 6:
        text += f"; not run: {len(missing)} of {len(results.artifact.cells)} cells"
    elif missing:
        text += f"; not run: {', '.join(missing)}"
    lines = textwrap.fill(text, int(figure.get_figwidth() * 21), max_lines=2, placeholder=" …")
    figure.supxlabel(lines, fontsize=6, color=GREY, x=0.99, ha="right")


def frame(artifact: Artifact, why_not: str) -> Figure:
    """An empty frame that says which artifact stands here and why it shows nothing."""
    figure, (axes,) = panels()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#bbbbbb")
    title = "\n".join(textwrap.wrap(artifact.title, 48))
    axes.text(0.5, 0.62, f"{artifact.id}\n{title}", ha="center", va="center", transform=axes.transAxes)
    axes.text(0.5, 0.32, f"not run ({why_not})", ha="center", color=GREY, transform=axes.transAxes)
    return figure


def save(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Four files that are the same bytes at every build: vector, print, screen, and the drawn numbers."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it stands; each format would lay it out anew
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    for extension, fields in metadata.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=extension, metadata=fields)
        write_atomically(stem.parent / f"{stem.name}.{extension}", buffer.getvalue())
    write_atomically(
        stem.parent / f"{stem.name}.csv", data.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    )
