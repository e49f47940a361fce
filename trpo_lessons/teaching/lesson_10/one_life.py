"""One life of a recorded policy, kept whole: what neither a score nor a log tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import FRAME_SKIP, STACK, joystick
from trpo_lessons.teaching.lesson_10.screens import HEIGHT, WIDTH, emulator
from trpo_lessons.teaching.lesson_10.shared import Bytes
from trpo_lessons.training import Run

SECONDS = FRAME_SKIP / 60  # of a step
OXYGEN, DIVERS, DEPTH = 102, 62, 97
"""Where Seaquest's program keeps them among the console's 128 bytes (Anand et al., 2019, for the first two)."""


@dataclass(frozen=True)
class Life:
    """From the beginning of a game to its first lost life, a step at a time.

    screens  [T, 210, 160, 3]  bytes, the last screen of each step in color
    memory   [T, 128]  bytes: the console's memory
    """

    screens: Bytes
    memory: Bytes


def first_life(run: Run, seed: int = 0) -> Life:
    """What the policy makes of its first life, with sampled actions and no waiting before the game.

    Raises ValueError if it outlives 2000 steps.
    """
    ale, resize, generator = emulator(run.config.task), AreaResize(HEIGHT, WIDTH), torch.Generator().manual_seed(seed)
    stack = np.zeros((STACK, HEIGHT, WIDTH), dtype=np.uint8)
    stack[-1] = resize(ale.getScreenGrayscale())
    lives, screens, memory = ale.lives(), [], []
    for _ in range(2000):
        code, greys = int(joystick()[tuple(run.act(stack, generator))]), []
        for _ in range(FRAME_SKIP):
            ale.act(code)
            greys.append(ale.getScreenGrayscale())
        stack = np.concatenate([stack[1:], resize(np.maximum(*greys[-2:]))[None]])
        screens.append(ale.getScreenRGB())
        memory.append(ale.getRAM())
        if ale.lives() < lives:
            return Life(np.array(screens), np.array(memory))
    raise ValueError(f"{run.config.task} goes on for more than 2000 steps without losing a life")


def lives_after_surfacing(seconds_below: float) -> tuple[int, int]:
    """Seaquest without a policy: dive, stay below, come up. The lives before and after, with no diver aboard."""
    ale, codes = emulator("seaquest"), joystick()
    down, nothing, up = (int(codes[1, vertical, 0]) for vertical in (2, 1, 0))
    for action, seconds in ((nothing, 5.0), (down, 2.0), (nothing, seconds_below)):
        for _ in range(round(60 * seconds)):
            ale.act(action)
    before, aboard = ale.lives(), int(ale.getRAM()[DIVERS])
    if aboard:
        raise ValueError(f"a diver came aboard within {seconds_below:g} s")
    for _ in range(240):
        ale.act(up)
    return before, ale.lives()


def draw_life(figure: Figure, life: Life, shown: int = 4) -> None:
    """Screens evenly over the life, the last of them two seconds before its end, with the time of each."""
    steps = np.linspace(0, len(life.screens) - 1 - 2 / SECONDS, shown + 1).round().astype(int)[1:]
    for axes, step in zip(figure.subplots(1, shown), steps, strict=True):
        axes.imshow(life.screens[step], aspect=0.75)  # the television's pixels were wider than high
        axes.set_title(f"{(step + 1) * SECONDS:.0f} s", fontsize=11)
        axes.set_axis_off()
