"""Pictures in a notebook, each with alternative text; their look is `viewing.style`'s."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
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
    joined,
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
    "display_film",
    "display_panels",
    "display_png",
    "figure",
    "img",
    "joined",
    "new_figure",
    "png",
    "shown_width",
    "style",
]


def display_png(picture: bytes, alt: str) -> None:
    """Show PNG bytes in a notebook, with alternative text. Raises ValueError if `alt` is empty.

    JupyterLab and nbconvert give a PNG output no alternative text, wherever it is stored; an HTML output they show as
    it is. So the picture is an HTML ``<img>`` there. The PNG stays beside it for what cannot show HTML, such as LaTeX.
    The plain-text form is compared by nbval: a picture whose description changes turns validation red.
    """
    data, metadata = _output(picture, alt)
    display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def img(picture: bytes, alt: str) -> str:
    """PNG bytes as HTML, shown in their own size or as wide as the page. Raises ValueError if `alt` is empty."""
    if not alt.strip():
        raise ValueError("a picture needs alternative text: say what it shows, for a reader who cannot see it")
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    layout = f'width="{shown_width(picture)}" style="max-width:100%;height:auto"'
    return f'<img alt="{escape(alt)}" {layout} src="{source}">'


def display_film(film: bytes, still: bytes, alt: str, width: int) -> None:
    """Show a GIF `width` pixels wide, with alternative text; a click folds it away. Raises ValueError without one.

    `still`, a PNG, is for what shows no films. The page holds both, so that a reader without a kernel sees it move.
    """
    if not alt.strip():
        raise ValueError("a film needs alternative text: say what it shows, for a reader who cannot see it")
    source = f"data:image/gif;base64,{base64.b64encode(film).decode()}"
    image = f'<img alt="{escape(alt)}" width="{width}" style="max-width:100%;height:auto" src="{source}">'
    html = f"<details open><summary>Film (a click folds it away)</summary>{image}</details>"
    data = {"text/html": html, "image/png": base64.b64encode(still).decode(), "text/plain": f"Film: {alt}"}
    display(data, raw=True, metadata={"image/png": {"alt": alt, "width": width}})  # type: ignore[no-untyped-call]


WIDE = 600  # px; where two such pictures stand side by side, neither can be read


def display_panels(title: str, panels: Sequence[tuple[bytes, str]]) -> None:
    """Show several pictures, each with its alternative text, side by side as far as the page is wide enough.

    None is made smaller than it can be read: on a narrow page they stand below one another, and wide ones always do.
    The PNG output is all of them in one row, or in one column.
    """
    wide = any(shown_width(picture) > WIDE for picture, _ in panels)
    images = [
        f'<div style="flex:1 1 {"100%" if wide else "400px"};min-width:0;max-width:{shown_width(picture)}px">'
        f"{img(picture, alt)}</div>"
        for picture, alt in panels
    ]
    html = f'<div role="group" aria-label="{escape(title)}" style="display:flex;flex-wrap:wrap">{"".join(images)}</div>'
    in_one = joined([picture for picture, _ in panels], below=wide)
    data, metadata = _output(in_one, f"{title} {' '.join(alt for _, alt in panels)}")
    display(data | {"text/html": html}, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def _output(picture: bytes, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    html = img(picture, alt)
    data = {"text/html": html, "image/png": base64.b64encode(picture).decode(), "text/plain": f"Picture: {alt}"}
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
