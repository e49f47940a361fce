"""What the emulator draws, before anything is done to it: lesson 10, section 1."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import ale_py
import numpy as np
import torch

from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import FRAME_SKIP, STACK, AtariSettings, joystick, rom_path
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.training.settings.obs_statistics import FrameMoments

STEPS = 160  # of four frames each: a good ten seconds of play
FIRST = 60  # the explorer begins here: by then something moves in every game
HEIGHT, WIDTH = AtariSettings().height, AtariSettings().width


def emulator(game: str) -> ale_py.ALEInterface:
    """The bare emulator with a game's cartridge, at its beginning. Raises MissingRom."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)  # not that any of the seven games would draw a number
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(rom_path(game))
    ale.reset_game()
    return ale


@dataclass(frozen=True)
class Play:
    """A stretch of a game, four frames a step: the last two screens of every step in colour, and the small frames.

    pairs   [STEPS, 2, 210, 160, 3]  bytes
    greys   [STEPS, 2, 210, 160]  bytes, the same screens as the emulator makes them grey
    frames  [STEPS, 52, 40]  bytes: the larger of the two greys, made small
    """

    pairs: Bytes
    greys: Bytes
    frames: Bytes

    @functools.cached_property
    def statistics(self) -> FrameMoments:
        """The mean frame of this stretch, and one deviation for all its pixels."""
        return FrameMoments.empty((HEIGHT, WIDTH)).including(torch.from_numpy(self.frames))

    def stack(self, step: int) -> Bytes:
        """The observation after a step, [4, 52, 40]."""
        return self.frames[step - STACK + 1 : step + 1]

    def normalised(self, step: int) -> Floats:
        """The same as a network sees it."""
        seen = self.statistics.normalise(torch.from_numpy(self.stack(step)[None].copy()))[0]
        return np.asarray(seen.numpy(), dtype=np.float64)


def one_step(ale: ale_py.ALEInterface, action: int) -> tuple[Bytes, Bytes]:
    """Hold an action for four frames: the last two screens, in color [2, 210, 160, 3] and grey [2, 210, 160]."""
    pair, greys = [], []
    for frame in range(FRAME_SKIP):
        ale.act(action)
        if frame >= FRAME_SKIP - 2:
            pair.append(ale.getScreenRGB())
            greys.append(ale.getScreenGrayscale())
    return np.array(pair), np.array(greys)


@functools.lru_cache(maxsize=2)
def played(game: str, seed: int = 0) -> Play:
    """A stretch of a game with random actions, each held for four frames."""
    rng, ale, codes = np.random.default_rng(seed), emulator(game), joystick().ravel()
    pairs = np.empty((STEPS, 2, 210, 160, 3), dtype=np.uint8)
    greys = np.empty((STEPS, 2, 210, 160), dtype=np.uint8)
    for step in range(STEPS):
        pairs[step], greys[step] = one_step(ale, int(codes[rng.integers(len(codes))]))
        if ale.game_over():
            ale.reset_game()
    resize = AreaResize(HEIGHT, WIDTH)
    return Play(pairs, greys, np.array([resize(larger) for larger in greys.max(1)]))


def steps_that_blink(game: str) -> int:
    """In how many of the 100 steps since `FIRST` pixels differ between the two screens just as in the step before."""
    greys = played(game).greys
    now, before = greys[FIRST:], greys[FIRST - 1 : -1]
    blinks = (now[:, 0] != now[:, 1]) & (now == before).all(1)
    return int(blinks.any((1, 2)).sum())


def background_share(frames: Bytes) -> float:
    """Which share of the mean square of all bytes is that of the mean frame: what is the same in every state."""
    values = frames.astype(np.float64)
    return float((values.mean(0) ** 2).mean() / (values**2).mean())
