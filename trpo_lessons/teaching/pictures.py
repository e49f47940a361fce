"""Pictures in a notebook, each with alternative text; their look is `viewing.style`'s."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import display
from matplotlib.figure import Figure

from trpo_lessons.viewing.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLE,
    VERMILION,
    new_figure,
    png,
    shown_width,
    style,
)

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "STYLE",
    "VERMILION",
    "LivePicture",
    "display_png",
    "figure",
    "new_figure",
    "png",
    "shown_width",
    "style",
]


def display_png(picture: bytes, alt: str) -> None:
    """Show PNG bytes in a notebook.

    The alternative text goes where nbconvert looks for it, so that it reaches HTML pages, and into the plain-text form
    of the output, which nbval compares: a picture whose description changes turns validation red.
    """
    data, metadata = _output(picture, alt)
    display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def _output(picture: bytes, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    if not alt.strip():
        raise ValueError("a picture needs alternative text: say what it shows, for a reader who cannot see it")
    data = {"image/png": base64.b64encode(picture).decode(), "text/plain": f"Picture: {alt}"}
    return data, {"image/png": {"alt": alt, "width": shown_width(picture)}}


@contextmanager
def figure(alt: str, width: float = 7.0, height: float = 3.6) -> Iterator[Figure]:
    """Draw a picture of a lesson: yields a styled figure, shows it when the block ends.

    ``with pictures.figure(alt="A line that falls from 1 to 0.") as fig: fig.subplots().plot(x, y)``

    Raises ValueError if `alt` is empty. Width and height are in inches.
    """
    with style():
        drawn = new_figure(width, height)
        yield drawn
        display_png(png(drawn), alt)


class LivePicture:
    """A picture of a lesson that is drawn again, in place, as something goes on. The last drawing is what is stored."""

    def __init__(self, alt: str, width: float = 7.0, height: float = 3.6) -> None:
        self.alt, self.size = alt, (width, height)
        self._handle: Any = None

    def redraw(self, draw: Callable[[Figure], None]) -> None:
        """Show what `draw(figure)` draws, in place of what was shown before."""
        with style():
            drawn = new_figure(*self.size)
            draw(drawn)
            data, metadata = _output(png(drawn), self.alt)
        if self._handle is None:
            self._handle = display(data, raw=True, metadata=metadata, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True, metadata=metadata)
