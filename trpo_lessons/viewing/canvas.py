"""A drawing surface of fixed size whose pixels can be read again and again."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from trpo_lessons.viewing.style import BLACK, GREY, PIXELS_PER_INCH, style

WIDTH, HEIGHT = 480, 320  # pixels of every animation


class Canvas:
    """One pair of axes that fill the picture, the same number of pixels for a meter across and up, a mark each meter.

    ground  draw the ground, below a height of 0
    """

    def __init__(self, background: str, *, ground: bool) -> None:
        with style():
            figure = Figure(figsize=(WIDTH / PIXELS_PER_INCH, HEIGHT / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
            self._canvas = FigureCanvasAgg(figure)
            self.axes = figure.add_axes((0, 0, 1, 1), facecolor=background)
        self.axes.spines[:].set_visible(False)
        self.axes.xaxis.set_major_locator(MultipleLocator(1))
        self.axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f} m"))
        self.axes.yaxis.set_major_locator(MultipleLocator(1))
        self.axes.tick_params(length=0, labelleft=False, labelsize=9, pad=-14)  # labels inside the picture
        self.axes.grid(color=GREY, alpha=0.4, linestyle="-", linewidth=0.8)
        if ground:
            self.axes.axhspan(-100, 0, color="#D9D9D9", zorder=0.2)  # under the marks and their labels
            self.axes.axhline(0, color=BLACK, linewidth=1, linestyle="-", zorder=1.6)

    def aim(self, left: float, bottom: float, width: float) -> None:
        """Show `width` meters from `left`, and from `bottom` upward what fills the picture."""
        self.axes.set(xlim=(left, left + width), ylim=(bottom, bottom + width * HEIGHT / WIDTH))

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as it is now, [HEIGHT, WIDTH, 3]."""
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self._canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
