"""One look for every picture of the package: colors, fonts, lines.

Pictures are drawn on bare `matplotlib.figure.Figure` objects, never through pyplot: there is no global list of open
figures, so nothing has to be closed and nothing leaks when a slider is moved a thousand times.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito (2008): eight colors that stay apart for every common form of color blindness. Yellow is left out of the
# cycle because thin yellow lines vanish on white.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
BLACK = "#000000"
GREY = "#767676"
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
PIXELS_PER_INCH = 100
DENSITY = 1.5
# Perceptually uniform, and readable in grey: the color map for every surface and heat map.
COLOR_MAP = "cividis"

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    # Color and dash change together, so that no line is told from another by its color alone.
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK])
    + cycler(linestyle=LINE_STYLES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": PIXELS_PER_INCH,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.alpha": 0.3,
    "image.cmap": COLOR_MAP,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, `width` by `height` inches, that lays itself out. Call it, and draw, inside `style()`."""
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def style() -> Iterator[None]:
    """The course's matplotlib settings, for as long as the block runs."""
    with mpl.rc_context(STYLE):
        yield


def png(figure: Figure, small: bool = True) -> bytes:
    """The figure as the bytes of a PNG file, half as dense again as a plain screen.

    With 256 colors, and packed as well as can be, if it is to be `small` because it is stored. That takes as long as
    drawing does, which a picture that is only looked at can do without.
    """
    drawn = io.BytesIO()
    with style():
        figure.savefig(drawn, format="png", dpi=PIXELS_PER_INCH * DENSITY, pil_kwargs={"compress_level": 1})
    return _small(Image.open(drawn)) if small else drawn.getvalue()


def in_a_row(drawings: Sequence[bytes]) -> bytes:
    """Pictures made by `png`, side by side in one."""
    images = [Image.open(io.BytesIO(drawing)).convert("RGB") for drawing in drawings]
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return _small(row)


def in_a_column(drawings: Sequence[bytes]) -> bytes:
    """Pictures made by `png`, one below the other in one."""
    images = [Image.open(io.BytesIO(drawing)).convert("RGB") for drawing in drawings]
    column = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        column.paste(image, (0, top))
        top += image.height
    return _small(column)


def _small(image: Image.Image) -> bytes:
    small = io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def shown_width(picture: bytes) -> int:
    """How many pixels of a plain screen a picture made by `png` is wide."""
    return round(Image.open(io.BytesIO(picture)).width / DENSITY)
