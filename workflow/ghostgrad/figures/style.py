"""The common look of all figures: fonts, one color and dash per method, and reproducible files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from ghostgrad.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Look = tuple[str, LineStyleType]  # the color and the dash of a line

GREY = "#555555"
RC: dict[RcKeyType, Any] = {
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
    # Text becomes paths in SVG, so that a page looks the same without the font, and TrueType
    # fonts in PDF, because many journals refuse Type 3.
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "path.simplify": False,
}

# Okabe and Ito's palette, whose colors differ in lightness too. The dashes carry the distinction
# where a page is printed in grey.
BLACK = "#111111"
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4499"
ORANGE = "#E69F00"
SOLID: LineStyleType = "-"
DASHED: LineStyleType = (0, (5, 2))
DOTTED: LineStyleType = (0, (1, 1.5))
DASHDOT: LineStyleType = (0, (5, 1.5, 1, 1.5))

# The same method has the same look in the figures of all papers.
LOOKS: dict[str, Look] = {
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
# Positions in time, from early to late.
SHADES: list[Look] = [("#56B4E9", SOLID), (BLUE, DASHED), (BLACK, SOLID), (GREY, DOTTED)]
# For labels that LOOKS does not know.
SPARE: list[Look] = [
    (ORANGE, SOLID),
    (BLACK, DASHDOT),
    (PURPLE, DOTTED),
    (GREEN, DASHED),
    (BLACK, SOLID),
]


def line_look(label: str, index: int = 0) -> Look:
    """The color and dash of the curve with this label.

    The longest name in LOOKS with which the label begins decides, so that "LALC + WarmUp, batch
    4k" does not get the look of "LALC". A label without such a name gets a spare look by `index`.
    """
    known = [name for name in LOOKS if label.startswith(name)]
    return LOOKS[max(known, key=len)] if known else SPARE[index % len(SPARE)]


def apply_style(salt: str) -> None:
    """Set matplotlib's parameters for the next figure; `salt` seeds the ids inside an SVG, which
    are random otherwise and would differ at every build."""
    mpl.rcdefaults()
    mpl.rcParams.update(RC)
    mpl.rcParams["svg.hashsalt"] = salt


def save_figure(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write <stem>.svg, .pdf, .png and the drawn numbers as <stem>.csv, the same bytes at every
    build: dates and versions are left out of the metadata."""
    figure.draw_without_rendering()
    # The positions are final now. With the layout engine left on, each format would lay out the
    # figure again, and labels placed by their pixels would no longer fit.
    figure.set_layout_engine("none")
    metadata: dict[str, dict[str, None]] = {
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
        "png": {"Software": None},
    }
    for extension, fields in metadata.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=extension, metadata=fields)
        write_atomically(stem.parent / f"{stem.name}.{extension}", buffer.getvalue())
    table = data.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(stem.parent / f"{stem.name}.csv", table)
