"""One life of a recorded policy, kept whole: what neither a score nor a log tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import FRAME_SKIP, STACK, joystick
from trpo_lessons.teaching.lesson_10.screens import HEIGHT, WIDTH, emulator, one_step
from trpo_lessons.teaching.lesson_10.shared import Bytes
from trpo_lessons.training import Run

SECONDS = FRAME_SKIP / 60  # of a step
UP = (1, 0, 0)  # on the joystick: neither left nor right, up, no fire
OXYGEN, DIVERS, DEPTH = 102, 62, 97
"""Where Seaquest's program keeps them among the console's 128 bytes (Anand et al., 2019, for the first two)."""


@dataclass(frozen=True)
class Life:
    """A game from its beginning, a step at a time.

    screens  [T, 210, 160, 3]  bytes, the last screen of each step in color
    memory   [T, 128]  bytes: the console's memory
    lost     whether it ends with a lost life
    """

    screens: Bytes
    memory: Bytes
    lost: bool


def first_life(run: Run, seed: int = 0, rise: Callable[[Bytes], bool] | None = None, longest: int = 700) -> Life:
    """The policy's first life, with sampled actions and no waiting before the game; at most `longest` steps of it.

    rise  what to ask of the memory [128] before each step: once it says yes, the joystick is held up in place of the
          policy
    """
    ale, codes, resize = emulator(run.config.task), joystick(), AreaResize(HEIGHT, WIDTH)
    generator = torch.Generator().manual_seed(seed)
    stack = np.zeros((STACK, HEIGHT, WIDTH), dtype=np.uint8)
    stack[-1] = resize(ale.getScreenGrayscale())
    lives, rising = ale.lives(), False
    screens: list[Bytes] = []
    memory: list[Bytes] = []
    while len(screens) < longest and ale.lives() == lives:
        rising = rising or (rise is not None and rise(ale.getRAM()))
        pair, greys = one_step(ale, int(codes[UP if rising else tuple(run.act(stack, generator))]))
        stack = np.concatenate([stack[1:], resize(greys.max(0))[None]])
        screens.append(pair[-1])
        memory.append(ale.getRAM())
    return Life(np.array(screens), np.array(memory), lost=ale.lives() < lives)


def draw_life(figure: Figure, life: Life, shown: int = 4) -> None:
    """Screens evenly over the life, the last of them two seconds before its end, with the time of each."""
    steps = np.linspace(0, len(life.screens) - 1 - 2 / SECONDS, shown + 1).round().astype(int)[1:]
    for axes, step in zip(figure.subplots(1, shown), steps, strict=True):
        axes.imshow(life.screens[step], aspect=0.75)  # the television's pixels were wider than high
        axes.set_title(f"{(step + 1) * SECONDS:.0f} s", fontsize=11)
        axes.set_axis_off()
