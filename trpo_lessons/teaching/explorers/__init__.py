"""Explorers: sliders that answer a question. Each lesson has its own in `explorers.lesson_XX`.

An explorer is made of four pure functions and some controls:

- ``compute(**settings) -> numbers``: everything the picture shows, as plain numbers (a frozen dataclass); tests
  call it.
- ``facts(numbers) -> str``: the lines printed beside the picture. They obey the rule for stored text: integers, names,
  verdicts with their tolerance, or three significant digits of a float64 closed form.
- ``draw(numbers, figure)``: draws on a matplotlib figure (or one panel of a larger one). The live picture is wide, so
  that it is on the screen together with its controls; one of `static` may be `upright`.
- ``alt(numbers) -> str``: one sentence for a reader who cannot see the picture.

In a notebook: show the explorer in one cell, let the next call ``explorer.set(...)``, and the next
``explorer.static(...)``. `set` moves the sliders as a reader would and prints the facts, so that a broken callback
turns the notebook red; `static` leaves a picture of several settings for readers without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Generic, TypeVar, cast

import ipywidgets as widgets  # type: ignore[import-untyped]
from matplotlib.figure import Figure, FigureBase

from trpo_lessons.teaching import pictures


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high` in steps of `step`; whole numbers if all of them are."""

    name: str
    label: str
    low: float
    high: float
    step: float
    start: float

    def build(self, label_width: str = "14em") -> widgets.Widget:
        whole = all(isinstance(value, int) for value in (self.low, self.high, self.step, self.start))
        kind = widgets.IntSlider if whole else widgets.FloatSlider
        slider = kind(value=self.start, min=self.low, max=self.high, step=self.step, **_common(self.label, label_width))
        if not whole:
            slider.readout_format = f".{max(0, len(f'{self.step:.10f}'.rstrip('0').split('.')[1]))}f"
        return slider

    def refuse(self, value: Any) -> str | None:
        """Why `value` cannot be reached with this slider; None if it can."""
        if not self.low - 1e-12 <= value <= self.high + 1e-12:
            return f"{self.name} goes from {self.low} to {self.high}, so it cannot be {value}"
        steps = (value - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6:
            return f"{self.name} moves in steps of {self.step} from {self.low}, so it cannot be {value}"
        return None


@dataclass(frozen=True)
class Stops:
    """A slider over a list of values, for quantities that span decades."""

    name: str
    label: str
    values: Sequence[Any]
    start: Any

    def build(self, label_width: str = "14em") -> widgets.Widget:
        options = [(_short(value), value) for value in self.values]
        return widgets.SelectionSlider(options=options, value=self.start, **_common(self.label, label_width))

    def refuse(self, value: Any) -> str | None:
        """Why `value` cannot be chosen; None if it can."""
        return None if value in self.values else f"{self.name} is one of {list(self.values)}, so it cannot be {value}"


@dataclass(frozen=True)
class Choice(Stops):
    """A menu of names."""

    def build(self, label_width: str = "14em") -> widgets.Widget:
        common = _common(self.label, label_width)
        del common["continuous_update"]
        return widgets.Dropdown(options=list(self.values), value=self.start, **common)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _common(label: str, label_width: str) -> dict[str, Any]:
    return {
        "description": label,
        "tooltip": label,
        "continuous_update": False,
        "style": {"description_width": label_width},
        # ipywidgets give every control a margin of 2 px on either side.
        "layout": widgets.Layout(width=f"calc({label_width} + 26em)", max_width="calc(100% - 4px)"),
    }


# Read by screen readers, seen by nobody.
HIDDEN = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)"
PANEL_WIDTH = 4.6  # inches of one picture of `Explorer.static`
Control = Slider | Stops | Choice
Numbers = TypeVar("Numbers")


def upright(figure: FigureBase) -> bool:
    """Whether two panels are better drawn one below the other than side by side."""
    box = cast("Figure", figure).bbox  # which a SubFigure has, too
    return bool(box.height > 0.75 * box.width)


@dataclass(frozen=True)
class View:
    """What an explorer shows for one setting of its controls."""

    facts: str
    picture: bytes
    alt: str


class Explorer(Generic[Numbers]):
    """Controls, the facts they lead to, and the picture. See the module's docstring for the four functions.

    `size` is the picture's width and height in inches, `panel_height` the height of one picture of `static`, as a
    rule in the proportions of `size`. With `wide_panels` those are as wide as the live picture, and stand one below the
    other: for a drawing of three panels. Every setting is an argument of `compute`, by name.
    """

    def __init__(
        self,
        title: str,
        *,
        compute: Callable[..., Numbers],
        facts: Callable[[Numbers], str],
        draw: Callable[[Numbers, FigureBase], None],
        alt: Callable[[Numbers], str],
        controls: Sequence[Control],
        size: tuple[float, float] = (7.0, 3.8),
        panel_height: float | None = None,
        wide_panels: bool = False,
    ) -> None:
        self.title = title
        self.compute, self.facts, self.draw, self.alt = compute, facts, draw, alt
        self.controls = {control.name: control for control in controls}
        self.size = size
        self.panel_width = size[0] if wide_panels else PANEL_WIDTH
        self.panel_height = panel_height or max(self.panel_width * size[1] / size[0] + 0.4, 3.4)
        longest = max(len(control.label) for control in controls)
        self.sliders: dict[str, widgets.Widget] = {
            control.name: control.build(f"{0.55 * longest + 1:.0f}em") for control in controls
        }
        self.facts_area = widgets.HTML(layout=widgets.Layout(max_width="calc(100% - 4px)"))
        self.picture_area = widgets.HTML(layout=widgets.Layout(max_width="calc(100% - 4px)"))
        self.reset_button = widgets.Button(description="Reset", tooltip=f"Reset: {title}")
        self._shown: dict[str, Any] | None = None
        self._facts_text = ""
        for slider in self.sliders.values():
            slider.observe(self._follow, names="value")
        self.reset_button.on_click(self._reset)
        heading = widgets.HTML(f"<b>{escape(title)}</b>")
        rows = [heading, *self.sliders.values(), self.reset_button, self.facts_area, self.picture_area]
        self.box = widgets.VBox(rows)
        self._follow(None)

    @property
    def settings(self) -> dict[str, Any]:
        """Where the controls stand now."""
        return {name: slider.value for name, slider in self.sliders.items()}

    def render(self, **settings: Any) -> View:
        """The facts, the picture and its description for these settings. Pure: no widget is touched."""
        numbers = self.compute(**settings)
        with pictures.style():
            figure = pictures.new_figure(*self.size)
            self.draw(numbers, figure)
            return View(self.facts(numbers), pictures.png(figure, small=False), self.alt(numbers))

    def set(self, **settings: Any) -> None:
        """Move the controls as a reader would, and print the facts that are then shown.

        Raises ValueError for a setting no reader could reach, and RuntimeError if the facts did not follow the
        controls. An error in one of the explorer's functions comes through.
        """
        for name, value in settings.items():
            if name not in self.controls:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self.controls)}")
            reason = self.controls[name].refuse(value)
            if reason:
                raise ValueError(reason)
        for name, value in settings.items():
            self.sliders[name].value = value
        if self._shown != self.settings:
            raise RuntimeError("the facts and the picture did not follow the controls: a callback is missing")
        print(self._facts_text)

    def static(self, *panels: dict[str, Any]) -> None:
        """Show one picture for each of the given settings, and print the facts of each.

        A control that a setting does not name stands at its start. The pictures stay in the file, for readers without
        a kernel, HTML pages and print. Side by side or below one another: as the page is wide.
        """
        start = {name: control.start for name, control in self.controls.items()}
        settings = [start | panel for panel in panels]
        numbers = [self.compute(**setting) for setting in settings]
        captions = [self._caption(panel) for panel in panels]
        with pictures.style():
            drawn = [self._panel(panel, caption) for panel, caption in zip(numbers, captions, strict=True)]
        alts = [f"{caption}: {self.alt(panel)}" for caption, panel in zip(captions, numbers, strict=True)]
        pictures.display_panels(self.title, list(zip(drawn, alts, strict=True)))
        for caption, panel in zip(captions, numbers, strict=True):
            print(f"{caption}\n  " + self.facts(panel).replace("\n", "\n  "))

    def _panel(self, numbers: Numbers, caption: str) -> bytes:
        figure = pictures.new_figure(self.panel_width, self.panel_height)
        self.draw(numbers, figure)
        # Lines break between settings, not within one.
        settings = [setting.replace(" ", "\N{NO-BREAK SPACE}") for setting in caption.split(", ")]
        figure.suptitle(", ".join(settings), wrap=True)
        return pictures.png(figure)

    def _caption(self, panel: dict[str, Any]) -> str:
        return ", ".join(f"{self.controls[name].label} = {_short(value)}" for name, value in panel.items())

    def _follow(self, _change: Any) -> None:
        settings = self.settings
        try:
            view = self.render(**settings)
        except Exception as error:
            # A widget callback that fails only reaches a log the reader never opens; so the reason is shown here too.
            reason = escape(f"{type(error).__name__}: {error}")
            self.facts_area.value = f'<div role="alert">The picture could not be drawn. {reason}</div>'
            self.picture_area.value = ""
            self._shown = None
            raise
        self._shown, self._facts_text = settings, view.facts
        lines = "<br>".join(escape(line) for line in view.facts.splitlines())
        # ipywidgets' sliders have no accessible names (8.1), so what is announced says where the controls stand.
        announced = f'<span style="{HIDDEN}">{escape(self._places())}. </span>{lines}'
        status = 'role="status" aria-live="polite" aria-atomic="true"'
        self.facts_area.value = f'<div {status} style="line-height:1.5">{announced}</div>'
        # Nor has its Image alternative text; an <img> of our own has. It stands in a line, and theirs is 28 px high.
        self.picture_area.value = f'<div style="line-height:1">{pictures.img(view.picture, view.alt)}</div>'

    def _places(self) -> str:
        places = {control.label: _short(self.sliders[name].value) for name, control in self.controls.items()}
        return ", ".join(f"{label} at {value}" for label, value in places.items())

    def _reset(self, _button: widgets.Button) -> None:
        for name, control in self.controls.items():
            self.sliders[name].value = control.start

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        # The widget's own repr spells out every picture byte; this line is what nbval compares instead.
        bundle: dict[str, Any] = self.box._repr_mimebundle_(**options)
        return bundle | {"text/plain": f"Explorer: {self.title} Controls: {self._places()}."}
