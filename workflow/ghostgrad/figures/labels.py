"""Names at the ends of curves instead of a legend.

The names move up and down only, because each has to stay beside the end of its curve. Of the
libraries for label placement, adjustText gives nearly the same picture when it is restricted to
vertical moves, but it also moves names that touch nothing, stops by the clock unless told
otherwise, and still needs the axis widened beforehand. Spreading one sorted column takes ten lines
and gives the same pixels at every build, so no library is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from ghostgrad.figures.style import line_look

POINTS_PER_INCH = 72
LINE_SPACING = 1.15  # distance of neighboring names, in font sizes
GAP = 4  # points between the end of a curve and its name

CurveEnd = tuple[str, float, float]  # label, x and y in data coordinates


def label_curves(axes: Axes, ends: Sequence[CurveEnd], left: bool) -> None:
    """Write the names of curves beside their ends, in the color of the curve, pushed apart where
    they would touch.

    `left` says on which side the curves end. The x axis is widened so that the names fit inside,
    and positions are computed in pixels, so call this when everything else has been drawn.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    notes = [_annotate(axes, end, index, left) for index, end in enumerate(ends)]
    figure.draw_without_rendering()  # the layout has to be known before text can be measured
    _widen_x_axis(axes, notes, left)
    figure.draw_without_rendering()  # widening the axis has moved the ends

    line_height = LINE_SPACING * mpl.rcParams["font.size"] * figure.dpi / POINTS_PER_INCH
    pixels = np.array([axes.transData.transform((x, y)) for _, x, y in ends])
    bottom, top = axes.bbox.y0 + line_height / 2, axes.bbox.y1 - line_height / 2
    # Curves may end at different x. Only names in the same column can touch.
    for x in np.unique(pixels[:, 0]):
        column = [i for i in np.argsort(pixels[:, 1]) if pixels[i, 0] == x]
        spread = _spread_apart(pixels[column, 1], line_height, bottom, top)
        for i, y in zip(column, spread, strict=True):
            offset = (y - pixels[i, 1]) * POINTS_PER_INCH / figure.dpi
            notes[i].xyann = (notes[i].xyann[0], offset)


def _annotate(axes: Axes, end: CurveEnd, index: int, left: bool) -> Annotation:
    label, x, y = end
    return axes.annotate(
        label,
        (x, y),
        (-GAP if left else GAP, 0),
        textcoords="offset points",
        color=line_look(label, index)[0],
        ha="right" if left else "left",
        va="center",
        annotation_clip=False,
    )


def _widen_x_axis(axes: Axes, notes: Sequence[Annotation], left: bool) -> None:
    """Make room for the widest name: it takes `share` of what the axis shows now."""
    figure = axes.figure
    widest = max(note.get_window_extent().width for note in notes)
    widest += 2 * GAP * figure.dpi / POINTS_PER_INCH
    share = widest / (axes.bbox.width - widest)
    low, high = axes.get_xlim()
    if left:
        axes.set_xlim(low - share * (high - low), high)
    else:
        axes.set_xlim(low, high + share * (high - low))


def _spread_apart(positions: np.ndarray, distance: float, bottom: float, top: float) -> np.ndarray:
    """Sorted positions moved as little as possible so that neighbors are `distance` apart, shifted
    as a whole into [bottom, top]."""
    y: np.ndarray = np.array(positions, dtype=float)
    # Pushing one pair apart can push it into its neighbors, so repeat until nothing touches. Ten
    # names need some tens of rounds; the bound ends the loop where rounding keeps a pair tight.
    for _ in range(200):
        touching = np.flatnonzero(np.diff(y) < distance - 1e-6)
        if not len(touching):
            break
        for i in touching:
            shift = (distance - (y[i + 1] - y[i])) / 2
            y[i] -= shift
            y[i + 1] += shift
    y += max(0.0, bottom - y[0]) - max(0.0, y[-1] - top)
    return y
