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
BROWN = "#7A4A00"  # these two are for a figure that has used up the eight
VIOLET = "#6A3D9A"
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


def joined(drawings: Sequence[bytes], below: bool = False) -> bytes:
    """Pictures made by `png` in one: side by side, or one `below` the other."""
    images = [Image.open(io.BytesIO(drawing)).convert("RGB") for drawing in drawings]
    widths, heights = [image.width for image in images], [image.height for image in images]
    size = (max(widths), sum(heights)) if below else (sum(widths), max(heights))
    whole, left, top = Image.new("RGB", size, "white"), 0, 0
    for image in images:
        whole.paste(image, (left, top))
        left, top = (left, top + image.height) if below else (left + image.width, top)
    return _small(whole)


def _small(image: Image.Image) -> bytes:
    small = io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def shown_width(picture: bytes) -> int:
    """How many pixels of a plain screen a picture made by `png` is wide."""
    return round(Image.open(io.BytesIO(picture)).width / DENSITY)
