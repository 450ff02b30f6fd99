"""Curves and the numbers behind them: a mean with its band, over repeats or over seeds.

Every drawing function returns its figure and a frame with DATA_COLUMNS, which is saved beside the
figure. In that frame `low` and `high` bound the band and `n` counts what the mean is over.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghostgrad.analysis.results import Results
from ghostgrad.figures.labels import CurveEnd, label_curves
from ghostgrad.figures.panels import new_grid, set_log_y
from ghostgrad.figures.style import BLACK, SOLID, Look, line_look

DATA_COLUMNS = ["panel", "label", "x", "mean", "se", "low", "high", "n"]
Drawing = tuple[Figure, pd.DataFrame]


def no_data() -> pd.DataFrame:
    """The drawn numbers of a figure that shows none."""
    return pd.DataFrame(columns=DATA_COLUMNS)


def over_repeats(
    label: str, x: np.ndarray, values: np.ndarray, levels: tuple[float, float] = (0.05, 0.95)
) -> pd.DataFrame:
    """The drawn numbers of a curve over the repeats of a simulation: `values` has shape (repeats,
    len(x)). The band lies between two quantiles and holds 90 % of the repeats unless other `levels`
    are given; levels (0, 1) give the range."""
    low, high = np.quantile(values, levels, axis=0)
    columns = {
        "panel": "",
        "label": label,
        "x": x,
        "mean": values.mean(0),
        "low": low,
        "high": high,
        "n": len(values),
        "se": values.std(0, ddof=1) / len(values) ** 0.5,
    }
    return pd.DataFrame(columns, columns=DATA_COLUMNS)


def over_seeds(frame: pd.DataFrame, x: str, y: str, panel: str, label: str) -> pd.DataFrame:
    """The drawn numbers of a curve over the seeds of training runs: the mean of column `y` at each
    value of column `x`, with the range of the seeds as its band."""
    data = frame.groupby(x)[y].agg(["mean", "sem", "min", "max", "count"]).reset_index()
    data.columns = pd.Index(["x", "mean", "se", "low", "high", "n"])
    return data.assign(panel=panel, label=label)[DATA_COLUMNS]


def concatenate(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The drawn numbers of several curves, in the order in which they were drawn."""
    return pd.concat(frames, ignore_index=True)[DATA_COLUMNS] if frames else no_data()


def curve_start(frame: pd.DataFrame, label: str) -> CurveEnd:
    """Where to write the name of a curve at its left end."""
    return label, float(frame["x"].iloc[0]), float(frame["mean"].iloc[0])


def curve_end(frame: pd.DataFrame, label: str) -> CurveEnd:
    """Where to write the name of a curve at its right end."""
    return label, float(frame["x"].iloc[-1]), float(frame["mean"].iloc[-1])


def draw_band(axes: Axes, frame: pd.DataFrame, color: str) -> None:
    """The area between columns `low` and `high`, translucent because bands overlap."""
    axes.fill_between(frame["x"], frame["low"], frame["high"], color=color, alpha=0.15, linewidth=0)


def draw_curve(
    axes: Axes, frame: pd.DataFrame, label: str, index: int = 0, marker: str | None = None
) -> None:
    """A mean with its band, in the look of its label. Where two curves of one panel have the same
    look, as those of one method with two settings, the later is thinner."""
    color, dash = line_look(label, index)
    # matplotlib forgets the dash pattern that a line was given, so it is kept as the line's id.
    same_look = [x for x in axes.lines if x.get_color() == color and x.get_gid() == str(dash)]
    draw_band(axes, frame, color)
    axes.plot(
        frame["x"],
        frame["mean"],
        gid=str(dash),
        color=color,
        linestyle=dash,
        linewidth=mpl.rcParams["lines.linewidth"] * 0.55 ** len(same_look),
        marker=marker,
        markersize=3,
    )


def draw_reference_values(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    look: Look = (BLACK, SOLID),
    legend: str | None = None,
) -> None:
    """Numbers of a statement as hollow circles, in the color and dash of what they belong to."""
    axes.plot(
        x,
        y,
        color=look[0],
        linestyle=look[1],
        linewidth=0.6,
        label=legend,
        marker="o",
        markerfacecolor="white",
        markersize=3.6,
        markeredgewidth=0.8,
    )


def draw_by_epoch(results: Results, columns: Mapping[str, str], logarithmic: str = "") -> Drawing:
    """A panel for each column of series.csv against the epoch, a curve per cell with the mean and
    range over its seeds.

    `columns` maps the column to the title of its panel; `logarithmic` names the column whose y axis
    is logarithmic.
    """
    figure, grid = new_grid(1, len(columns), width=4.2 * len(columns), height=3.2)
    frames = []
    for axes, (column, title) in zip(grid[0], columns.items(), strict=True):
        ends = []
        for index, cell in enumerate(results.measured_cells):
            series = results.frame(cell, "series.csv")
            frame = over_seeds(series, "epoch", column, title, cell.label)
            draw_curve(axes, frame, cell.label, index)
            frames.append(frame)
            ends.append(curve_end(frame, cell.label))
        axes.set(xlabel="epoch", ylabel=title)
        if column == logarithmic:
            set_log_y(axes)
        label_curves(axes, ends, left=False)
    return figure, concatenate(frames)


def step_title(position: float, probed: pd.DataFrame) -> str:
    """`step 64,000 (here 12)`: a position in the paper's training, and the step of ours that stands
    for it at this scale. `probed` holds the rows probed there and may be empty."""
    title = f"step {position:,.0f}"
    if probed.empty or probed["step"].iloc[0] == position:
        return title
    return f"{title} (here {probed['step'].iloc[0]:,})"
