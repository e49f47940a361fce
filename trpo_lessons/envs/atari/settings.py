"""The games, and what can be chosen about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ale_py
import numpy as np
from ale_py import roms
from gymnasium import spaces
from numpy.typing import NDArray

GAMES = ("beam_rider", "breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders")

SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160  # pixels
FRAME_SKIP = 4  # frames to one step; the action is held
STACK = 4  # frames to one observation
MAX_FRAMES = 108_000  # 30 minutes of play at 60 frames a second
MAX_EPISODE_STEPS = MAX_FRAMES // FRAME_SKIP

NOOP = ale_py.Action.NOOP.value
FIRE = ale_py.Action.FIRE.value
NUM_ACTIONS = len(ale_py.Action.__members__)  # the full joystick: nine directions, with the button and without


class MissingRom(ValueError):  # noqa: N818 (it is named for what happened)
    """The cartridge of a game is not there; the message is one line that says what to do."""


@dataclass(frozen=True)
class AtariSettings:
    """What can be chosen about a game; the defaults are the paper's, as far as it says.

    height, width: of a frame in pixels. 52 x 40 is the screen reduced by four, the size for which the paper's network
        has its 33,500 parameters; 84 x 84 is what the deep Q-networks have.
    actions: "joystick" chooses left, none or right, then up, none or down, then the button: three independent choices,
        which together are all 18 actions. "legal" is these 18 as one choice, "minimal" those that the game uses.
    sticky_actions: the probability that a frame repeats the action of the frame before; 0 in the paper, 0.25 is the
        emulator's recommendation (Machado et al., 2018).
    no_op_max: a game starts after 0 to no_op_max - 1 frames of doing nothing, so that games differ.
    fire_reset: press the button in the first frame of a game; it counts as one of those frames.

    Raises ValueError for a value out of range.
    """

    height: int = 52
    width: int = 40
    actions: str = "joystick"
    sticky_actions: float = 0.0
    no_op_max: int = 30
    fire_reset: bool = False

    def __post_init__(self) -> None:
        _check("height", self.height, 1, SCREEN_HEIGHT)
        _check("width", self.width, 1, SCREEN_WIDTH)
        _check("no_op_max", self.no_op_max, 1, 1000)
        if self.actions not in ("joystick", "legal", "minimal"):
            raise ValueError(f"actions must be joystick, legal or minimal, not {self.actions!r}")
        if not 0.0 <= self.sticky_actions < 1.0:
            raise ValueError(f"sticky_actions must be a probability below 1, not {self.sticky_actions}")

    @property
    def observation_space(self) -> spaces.Box:
        """Four frames, the oldest first: uint8 [4, height, width]."""
        return spaces.Box(0, 255, shape=(STACK, self.height, self.width), dtype=np.uint8)

    def frames_before_start(self, generator: np.random.Generator) -> int:
        """How many frames of doing nothing a new game starts with, after the button if that is pressed."""
        return max(0, int(generator.integers(self.no_op_max)) - int(self.fire_reset))


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")


class Controls:
    """An action space for agents, and which of the emulator's 18 actions each of its actions is."""

    def __init__(self, game: str, actions: str) -> None:
        """`game` matters for "minimal" only: the cartridge knows which actions it uses."""
        self.space: spaces.Discrete | spaces.MultiDiscrete
        if actions == "joystick":
            self._codes = joystick()
            self.space = spaces.MultiDiscrete(list(self._codes.shape))
        else:
            self._codes = np.array(_minimal_actions(game) if actions == "minimal" else range(NUM_ACTIONS))
            self.space = spaces.Discrete(len(self._codes))

    def emulator_actions(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """[E] or [E, 3], from the action space, to [E]."""
        chosen: NDArray[np.int64] = self._codes[tuple(actions.T)] if actions.ndim > 1 else self._codes[actions]
        return chosen


def joystick() -> NDArray[np.int64]:
    """The emulator's action for (left, none, right), (up, none, down), (no button, button): [3, 3, 2]."""
    names = [
        [[(up_down + left_right + fire) or "NOOP" for fire in ("", "FIRE")] for up_down in ("UP", "", "DOWN")]
        for left_right in ("LEFT", "", "RIGHT")
    ]
    codes = [[[ale_py.Action.__members__[name].value for name in row] for row in table] for table in names]
    return np.array(codes, dtype=np.int64)


def _minimal_actions(game: str) -> list[int]:
    emulator = ale_py.ALEInterface()
    emulator.loadROM(rom_path(game))
    return [action.value for action in emulator.getMinimalActionSet()]


def rom_path(game: str) -> Path:
    """Where the cartridge of a game is. Raises MissingRom."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    path = roms.get_rom_path(game)
    if path is None or not Path(path).exists():
        raise MissingRom(f"the ROM of {game} is missing: it comes with the package ale-py, so reinstall that")
    return Path(path)
