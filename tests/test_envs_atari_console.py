"""One game against a naive twin, frames against OpenCV's definition, and mistakes in saving that would be noticed."""

import ale_py
import numpy as np
import pytest
from helpers import mutant

from trpo_lessons.envs.atari import console as console_module
from trpo_lessons.envs.atari.console import EMULATOR_BYTES, pack_emulator, unpack_emulator
from trpo_lessons.envs.atari.resize import AreaResize, area_weights
from trpo_lessons.envs.atari.settings import GAMES, AtariSettings, rom_path


def arrays(settings):
    """Frames, screen and emulator, as a console wants them."""
    return (
        np.zeros((4, settings.height, settings.width), np.uint8),
        np.zeros((210, 160), np.uint8),
        np.zeros(EMULATOR_BYTES, np.uint8),
    )


def loaded(game, module=console_module, **settings):
    """A console with its cartridge in, and its arrays."""
    chosen = AtariSettings(**settings)
    own = arrays(chosen)
    console = module.Console(rom_path(game), chosen, *own)
    console.load()
    return console, own


def actions(steps, seed=0):
    """One of the emulator's 18 actions for each step."""
    return np.random.default_rng(seed).integers(18, size=steps).tolist()


# ---- frames ----------------------------------------------------------------------------------------------------------


def naive_area_mean(picture, height, width):
    """The mean of every area, pixel by pixel, with the share of it that lies inside; float64."""
    rows, columns = picture.shape
    means = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = i * rows / height, (i + 1) * rows / height
            left, right = j * columns / width, (j + 1) * columns / width
            for y in range(int(top), min(rows, int(np.ceil(bottom)))):
                for x in range(int(left), min(columns, int(np.ceil(right)))):
                    inside = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                    means[i, j] += inside * picture[y, x]
    return means * height * width / (rows * columns)


@pytest.mark.parametrize(("height", "width"), [(52, 40), (84, 84), (105, 80), (42, 40), (210, 160), (7, 159)])
def test_a_frame_is_the_mean_over_areas(height, width):
    """Up to rounding, and where the mean is near a half, to either side."""
    screen = np.random.default_rng(0).integers(256, size=(210, 160)).astype(np.uint8)
    got, means = AreaResize(height, width)(screen), naive_area_mean(screen, height, width)
    assert got.dtype == np.uint8
    assert np.abs(got - means).max() <= 0.5 + 1e-4
    assert AreaResize(height, width)(np.full((210, 160), 255, np.uint8)).min() == 255


@pytest.mark.parametrize("shorter", [52, 84, 105, 209, 210, 1])
def test_the_shares_of_a_mean_add_up_to_one(shorter):
    weights = area_weights(210, shorter)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=0), shorter / 210, rtol=1e-5)


# ---- a step ----------------------------------------------------------------------------------------------------------


def test_a_step_against_a_naive_twin():
    """Four frames, the maximum of the last two, scores added up; the oldest of four stacked frames makes room."""
    console, (frames, _, _) = loaded("space_invaders", height=84, width=84)
    console.reset(no_ops=3)
    twin = ale_py.ALEInterface()
    twin.setFloat("repeat_action_probability", 0.0)
    twin.loadROM(rom_path("space_invaders"))
    twin.reset_game()
    for _ in range(3):
        twin.act(0)
    resize = AreaResize(84, 84)
    shown = [np.zeros((84, 84), np.uint8)] * 3 + [resize(twin.getScreenGrayscale())]
    flickered = False
    for action in actions(60):
        np.testing.assert_array_equal(frames, shown[-4:])
        scores, screens = [], []
        for _ in range(4):
            scores.append(twin.act(action))
            screens.append(twin.getScreenGrayscale())
        assert console.step([action] * 4) == (sum(scores), False)
        assert console.lives == twin.lives()
        shown.append(resize(np.maximum(screens[2], screens[3])))
        flickered |= (screens[2] != screens[3]).any()
    assert flickered  # so the maximum mattered


def test_the_picture_is_the_screen_in_colour():
    console, _ = loaded("pong")
    console.reset(no_ops=0)
    console.step([0] * 4)
    picture = console.picture()
    assert picture.shape == (210, 160, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


# ---- save and restore ------------------------------------------------------------------------------------------------


def play(console, frames, steps, seed):
    """All that can be seen: scores, ends, lives and frames."""
    seen = []
    for action in actions(steps, seed):
        score, game_over = console.step([action] * 4)
        seen.append((score, game_over, console.lives, frames.tobytes()))
        if game_over:
            console.reset(no_ops=2)
    return seen


def saved_after(console, own, steps):
    """Play, save, and give copies of the arrays."""
    console.reset(no_ops=1)
    play(console, own[0], steps, seed=1)
    console.save()
    return [array.copy() for array in own]


def restored_like(saved, console, own):
    for array, copy in zip(own, saved, strict=True):
        array[:] = copy
    console.restore()


@pytest.mark.parametrize(
    ("game", "history"),
    [(game, history) for game in GAMES for history in ("none", "reset")]
    + [("qbert", history) for history in ("loaded", "played", "played and reset")],
)
def test_restored_exactly_into_an_emulator_of_any_history(game, history):
    console, own = loaded(game)
    saved = saved_after(console, own, steps=40)
    expected = play(console, own[0], steps=12, seed=2)
    other, theirs = loaded(game)
    if history == "none":
        other = console_module.Console(rom_path(game), AtariSettings(), *theirs)
    elif history == "reset":
        other.reset(no_ops=0)
    elif history == "played":
        other.reset(no_ops=0)
        play(other, theirs[0], steps=7, seed=3)
    elif history == "played and reset":
        other.reset(no_ops=0)
        play(other, theirs[0], steps=7, seed=3)
        other.reset(no_ops=0)
    restored_like(saved, other, theirs)
    assert play(other, theirs[0], steps=12, seed=2) == expected


def test_a_game_after_the_restored_one_starts_the_same():
    """In these two a reset does not wipe out all that was before, so this is not for free."""
    for game in ("beam_rider", "seaquest"):
        console, own = loaded(game)
        saved = saved_after(console, own, steps=40)
        console.reset(no_ops=5)
        expected = play(console, own[0], steps=12, seed=2)
        other, theirs = loaded(game)
        restored_like(saved, other, theirs)
        other.reset(no_ops=5)
        assert play(other, theirs[0], steps=12, seed=2) == expected


@pytest.mark.parametrize(
    ("game", "change"),
    [
        # Q*bert goes on wrongly in an emulator that has played nothing.
        ("qbert", ("if not self._has_played:", "if False:")),
        # What the emulator shows right after a restore is stale.
        ("pong", ("restoreState(state)", "restoreState(state); self._running().getScreenGrayscale(self._screen)")),
    ],
)
def test_a_mistake_in_restoring_would_be_noticed(game, change):
    console, own = loaded(game)
    saved = saved_after(console, own, steps=40)
    expected = play(console, own[0], steps=12, seed=2)
    other, theirs = loaded(game, mutant(console_module, change))
    other.reset(no_ops=0)
    restored_like(saved, other, theirs)
    same_screen = np.array_equal(theirs[1], saved[1])
    assert not same_screen or play(other, theirs[0], steps=12, seed=2) != expected


def test_an_emulator_in_a_row_of_bytes():
    row = np.full(40, 7, np.uint8)
    pack_emulator(b"abc", row)
    assert unpack_emulator(row) == b"abc"
    assert not row[11:].any()
    pack_emulator(b"x" * 32, row)
    assert unpack_emulator(row) == b"x" * 32
    with pytest.raises(ValueError, match="the emulator's state has 33 bytes, and there is room for 32"):
        pack_emulator(b"x" * 33, row)


@pytest.mark.parametrize("place", [0, 3, 5, 9])
def test_a_damaged_row_is_refused(place):
    row = np.zeros(40, np.uint8)
    pack_emulator(b"abc", row)
    row[place] ^= 4
    with pytest.raises(ValueError, match="the saved state of the emulator is damaged"):
        unpack_emulator(row)


def test_nothing_runs_without_a_cartridge():
    console = console_module.Console(rom_path("pong"), AtariSettings(), *arrays(AtariSettings()))
    with pytest.raises(RuntimeError, match="no cartridge is loaded"):
        console.step([0] * 4)
