"""Explorers: the facts and the picture follow the controls, and a failure shows."""

from __future__ import annotations

import base64
import html
import importlib
import inspect
import io
import pkgutil
import re

import ipywidgets as widgets
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from teaching_contract import assert_explorer_keeps_contract, assert_stored_text
from teaching_fixture import compute_power, draw_power, power_explorer

from trpo_lessons import teaching
from trpo_lessons.teaching import pictures, verdict
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops, upright


def explorers_of_lessons():
    """Every function of a lesson's module that builds an explorer without being given anything."""
    found = []
    for info in pkgutil.iter_modules(teaching.__path__, f"{teaching.__name__}."):
        if not info.name.rpartition(".")[2].startswith("lesson_"):
            continue
        module = importlib.import_module(f"{info.name}.explorers")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = inspect.signature(function)
            builds = str(signature.return_annotation).startswith("Explorer")
            if builds and not signature.parameters and not name.startswith("_"):
                found.append(pytest.param(function, id=f"{info.name.rpartition('.')[2]}.{name}"))
    return found


@pytest.mark.parametrize("build", explorers_of_lessons())
def test_every_lesson_keeps_the_contract(build):
    assert_explorer_keeps_contract(build())


@pytest.fixture
def explorer():
    return power_explorer()


def text_of(area: widgets.HTML) -> str:
    return re.sub("<[^>]*>", " ", area.value).strip()


def test_moving_a_control_changes_text_and_picture(explorer):
    facts, picture = explorer.facts_area.value, explorer.picture_area.value
    explorer.sliders["power"].value = 3
    assert explorer.facts_area.value != facts
    assert explorer.picture_area.value != picture
    assert "power 3" in text_of(explorer.facts_area)


def test_every_kind_of_control_arrives(explorer):
    explorer.set(power=4, scale=0.1, kind="down")
    assert explorer.settings == {"power": 4, "scale": 0.1, "kind": "down"}
    assert "-0.00625" in text_of(explorer.facts_area)


def test_set_prints_the_facts_that_are_shown(explorer, capsys):
    explorer.set(power=3)
    assert capsys.readouterr().out == "power 3\nat one half: 0.125 <ok>\n"


def test_facts_and_descriptions_are_escaped(explorer):
    assert "&lt;ok&gt;" in explorer.facts_area.value
    assert 'alt="A curve &quot;up&quot; that ends at 1."' in explorer.picture_area.value


def test_facts_are_announced_to_screen_readers(explorer):
    assert 'aria-live="polite"' in explorer.facts_area.value
    assert "power at 2, scale at 1, direction at up. " in explorer.facts_area.value


def test_a_missing_callback_is_noticed(explorer):
    explorer.sliders["power"].unobserve_all()
    with pytest.raises(RuntimeError, match="did not follow the controls"):
        explorer.set(power=3)


def test_a_failing_callback_comes_through_and_is_shown_to_the_reader():
    broken = Explorer(
        "What fails?",
        compute=lambda x: 1 / (x - 2),
        facts=lambda value: f"value {value:.1f}",
        draw=lambda _value, _figure: None,
        alt=lambda _: "An empty picture, as an example.",
        controls=[Slider("x", "x", 0, 3, 1, 0)],
    )
    with pytest.raises(ZeroDivisionError):
        broken.set(x=2)
    assert 'role="alert"' in broken.facts_area.value
    assert "ZeroDivisionError" in broken.facts_area.value
    assert broken.picture_area.value == ""
    broken.set(x=3)
    assert "value 1.0" in broken.facts_area.value
    assert "<img" in broken.picture_area.value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": 9}, "power goes from 1 to 5, so it cannot be 9"),
        ({"power": 2.5}, "power moves in steps of 1 from 1, so it cannot be 2.5"),
        ({"scale": 0.5}, r"scale is one of \[0.01, 0.1, 1.0\], so it cannot be 0.5"),
        ({"kind": "sideways"}, "kind is one of"),
        ({"speed": 1}, "there is no control 'speed'; there are power, scale, kind"),
    ],
)
def test_settings_out_of_reach_are_refused(explorer, settings, message):
    with pytest.raises(ValueError, match=message):
        explorer.set(**settings)
    assert explorer.settings == {"power": 2, "scale": 1.0, "kind": "up"}


def test_reset_goes_back_to_the_start(explorer):
    start = explorer.facts_area.value, explorer.picture_area.value
    explorer.set(power=4, kind="down")
    explorer.reset_button.click()
    assert explorer.settings == {"power": 2, "scale": 1.0, "kind": "up"}
    assert (explorer.facts_area.value, explorer.picture_area.value) == start


def test_render_is_pure(explorer):
    before = explorer.facts_area.value
    one, other = explorer.render(power=3, scale=0.1, kind="up"), explorer.render(power=3, scale=0.1, kind="up")
    assert one == other
    assert explorer.facts_area.value == before


def test_sliders_wait_for_the_end_of_a_drag(explorer):
    assert not explorer.sliders["power"].continuous_update
    assert not explorer.sliders["scale"].continuous_update


def test_readouts_show_every_step():
    def format_of(step):
        return Slider("x", "x", 0.0, 1.0, step, 0.0).build().readout_format

    assert [format_of(0.5), format_of(0.05), format_of(0.001)] == [".1f", ".2f", ".3f"]


def test_stops_show_round_names():
    assert [label for label, _ in Stops("x", "x", [1e-4, 0.01, 10.0], 0.01).build().options] == ["0.0001", "0.01", "10"]


def test_the_stored_form_of_an_explorer_is_stable_and_holds_no_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == (
        "Explorer: How fast does a power grow? Controls: power at 2, scale at 1, direction at up."
    )
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert explorer._repr_mimebundle_()["text/plain"] == bundle["text/plain"]


def test_all_parts_are_in_the_box(explorer):
    for part in (*explorer.sliders.values(), explorer.reset_button, explorer.facts_area, explorer.picture_area):
        assert part in explorer.box.children


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "display", lambda data, **options: shown.append((data, options)))
    return shown


def test_static_shows_a_picture_and_the_facts_of_each_setting(explorer, displayed, capsys):
    explorer.static({"power": 1}, {"power": 2}, {"power": 3, "kind": "down"})
    ((data, options),) = displayed
    alts = re.findall('<img alt="([^"]*)"', data["text/html"])
    assert [alt.partition(":")[0] for alt in alts] == ["power = 1", "power = 2", "power = 3, direction = down"]
    assert data["text/plain"] == f"Picture: {explorer.title} {html.unescape(' '.join(alts))}"
    assert "flex-wrap:wrap" in data["text/html"]
    joined = matplotlib.image.imread(io.BytesIO(base64.b64decode(data["image/png"])))
    assert joined.shape[1] == 3 * 690
    for part in np.split(joined, 3, axis=1):
        assert np.ptp(part) > 0.5
    facts = capsys.readouterr().out
    assert facts.count("at one half") == 3
    assert "power = 3, direction = down\n  power 3\n  at one half: -0.125" in facts
    assert explorer.settings["power"] == 2


def test_wide_panels_stand_one_below_the_other(displayed, capsys):
    wide = Explorer(
        "How fast does a power grow?",
        compute=compute_power,
        facts=lambda numbers: f"power {numbers.power}",
        draw=draw_power,
        alt=lambda numbers: f"A curve that ends at {numbers.y[-1]:.3g}.",
        controls=[
            Slider("power", "power", 1, 4, 1, 2),
            Stops("scale", "scale", [1.0], 1.0),
            Choice("kind", "kind", ["up"], "up"),
        ],
        size=(8.0, 3.0),
        wide_panels=True,
    )
    wide.static({"power": 1}, {"power": 3})
    ((data, _),) = displayed
    assert data["text/html"].count("flex:1 1 100%;min-width:0;max-width:800px") == 2
    joined = matplotlib.image.imread(io.BytesIO(base64.b64decode(data["image/png"])))
    assert joined.shape[:2] == (2 * 510, 1200)
    for part in np.split(joined, 2, axis=0):
        assert np.ptp(part) > 0.5
    assert capsys.readouterr().out.count("power 3") == 1


def test_a_picture_needs_a_description(displayed):
    with pytest.raises(ValueError, match="alternative text"):
        pictures.display_png(b"", "  ")
    with pytest.raises(ValueError, match="alternative text"), pictures.figure(alt=""):
        pass
    assert not displayed


def test_a_live_picture_is_the_stored_one_but_for_the_packing(explorer):
    """256 colors are enough for a drawing: no pixel is far from what was drawn."""
    numbers = explorer.compute(**explorer.settings)
    with pictures.style():
        figure = pictures.new_figure(*explorer.size)
        explorer.draw(numbers, figure)
        live, stored = pictures.png(figure, small=False), pictures.png(figure)
    assert len(stored) < len(live) / 2
    pixels = [matplotlib.image.imread(io.BytesIO(picture))[..., :3] for picture in (live, stored)]
    assert pixels[0].shape == pixels[1].shape
    assert np.abs(pixels[0] - pixels[1]).max() < 0.1
    assert live == explorer.render(**explorer.settings).picture


def test_a_figure_is_shown_when_its_block_ends_and_leaves_nothing_behind(displayed):
    before = dict(plt.rcParams)
    with pictures.figure(alt="A line that rises.") as figure:
        figure.subplots().plot([0, 1], [0, 1])
    assert len(displayed) == 1
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_a_live_picture_is_drawn_again_in_place(monkeypatch):
    shown, updates = [], []

    class Handle:
        def update(self, data, **options):
            updates.append((data, options["metadata"]["image/png"]["alt"]))

    monkeypatch.setattr(pictures, "display", lambda data, **options: shown.append((data, options)) or Handle())
    live = pictures.LivePicture("A line that grows.")
    for length in (2, 3):
        live.redraw(lambda figure, length=length: figure.subplots().plot(range(length)))
    assert len(shown) == len(updates) == 1
    assert shown[0][1]["display_id"] is True
    assert updates[0][1] == "A line that grows."
    assert updates[0][0]["text/plain"] == shown[0][0]["text/plain"] == "Picture: A line that grows."
    assert updates[0][0]["image/png"] != shown[0][0]["image/png"]


def test_pictures_are_the_same_bytes_twice_and_not_blank(explorer):
    view = explorer.render(power=2, scale=1.0, kind="up")
    pixels = matplotlib.image.imread(io.BytesIO(view.picture))
    assert np.ptp(pixels) > 0.5
    assert pixels.shape[1] == 1050
    assert pictures.shown_width(view.picture) == 700


def test_every_line_differs_in_dash_as_well_as_in_color():
    cycle = list(pictures.STYLE["axes.prop_cycle"])
    assert len({entry["color"] for entry in cycle}) == len(cycle)
    assert len({str(entry["linestyle"]) for entry in cycle}) == len(cycle)


def test_verdicts_print_or_stop(capsys):
    verdict("both agree to 1e-12", np.bool_(True))
    assert capsys.readouterr().out == "both agree to 1e-12: yes\n"
    with pytest.raises(AssertionError, match="both agree to 1e-12"):
        verdict("both agree to 1e-12", np.bool_(False))


def test_fixture_explorer_keeps_the_contract_but_for_its_fault(explorer):
    with pytest.raises(ZeroDivisionError):
        assert_explorer_keeps_contract(explorer)


def sized(width, height):
    return Explorer(
        "How high?",
        compute=lambda number: number,
        facts=lambda number: f"number {number}",
        draw=lambda _number, figure: figure.subplots(),
        alt=lambda _number: "Empty axes, as an example.",
        controls=[Slider("number", "a number with quite a long name", 0, 3, 1, 0)],
        size=(width, height),
    )


def test_an_explorer_that_is_not_on_the_screen_with_its_sliders_is_refused():
    assert_explorer_keeps_contract(sized(8.4, 5.0))
    with pytest.raises(AssertionError, match=r"How high.*68\d px high in a window of .1280, 800., where 679 px"):
        assert_explorer_keeps_contract(sized(7.0, 5.54))
    with pytest.raises(AssertionError, match="850 px is made smaller"):
        assert_explorer_keeps_contract(sized(8.5, 4.0))


def test_panels_stand_below_one_another_where_a_picture_is_upright():
    assert [upright(pictures.new_figure(width, 4.0)) for width in (8.4, 5.4, 5.2, 3.0)] == [False, False, True, True]
    upper, lower = pictures.new_figure(8.0, 8.0).subfigures(2, 1)
    assert not upright(upper), "the half of a square"
    assert not upright(lower)


def test_a_long_caption_is_broken_and_not_cut():
    explorer = sized(7.0, 3.8)
    caption = explorer._caption({"number": 1})
    heights = []
    for words in (caption, ", ".join([caption, caption])):
        drawn = []
        with pictures.style():
            explorer.draw = lambda _number, figure, drawn=drawn: drawn.append(figure)
            explorer._panel(1, words)
            (figure,) = drawn
            figure.draw_without_rendering()  # saving had another resolution
            box = figure.texts[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        heights.append(box.height)
    assert heights[1] > 1.5 * heights[0]


@pytest.mark.parametrize("text", ["value 0.12345", "1.2345e-3", "<object at 0x7f>", "see /home/me/x", ""])
def test_the_rule_for_stored_text_refuses(text):
    with pytest.raises(AssertionError):
        assert_stored_text(text)


@pytest.mark.parametrize("text", ["value 0.00123", "10000 steps", "1.23e-5", "agree to 1e-10: yes", "theta_1 = 2.5"])
def test_the_rule_for_stored_text_accepts(text):
    assert_stored_text(text)
