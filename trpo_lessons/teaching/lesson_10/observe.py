"""Exercise observe of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats, agree

Observe = Callable[[Bytes, Bytes, bool], Bytes]
WEIGHTS = np.array([0.299, 0.587, 0.114])


class Moment(NamedTuple):
    """What the student's function is given."""

    screens: Bytes
    stack: Bytes
    first: bool


def moment(rng: Generator) -> Moment:
    """Two screens [2, 9, 12, 3], made of blocks of 3 x 3, the stack before [4, 3, 4], and no beginning of a game.

    No grey level lies half way between two whole numbers, and nor does the mean of nine: every way to round will do.
    """
    screens = rng.integers(0, 256, (2, 9, 12, 3), dtype=np.uint8)
    half = screens.astype(int) @ np.array([299, 587, 114]) % 1000 == 500
    screens[..., 2][half] ^= 1
    return Moment(screens, rng.integers(1, 256, (4, 3, 4), dtype=np.uint8), False)


def both(observe: Observe, screens: Bytes, stack: Bytes, _first: bool) -> tuple[Bytes, Bytes]:
    """In the middle of a game, and at its beginning."""
    return observe(screens.copy(), stack.copy(), False), observe(screens.copy(), stack.copy(), True)


observe = Check("observe", minutes=12, inputs=moment, arguments=Moment, behavior=both)


@observe.property("The three older frames should be the three newest of the observation before, in the same order.")
def shifts(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    return survives(lambda: agree(student(screens, stack, False)[:-1], stack[1:]))


@observe.property("Where a game begins, the three older frames should be zero.")
def begins_with_zeros(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    return survives(lambda: not np.any(student(screens, stack, True)[:-1]))


@observe.property("The newest frame should not depend on whether the game has just begun.")
def same_newest(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    return survives(lambda: agree(student(screens, stack, True)[-1], student(screens, stack, False)[-1]))


@observe.property("It should not matter which of the two screens came first.")
def screens_are_alike(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    return survives(lambda: agree(student(screens, stack, False), student(screens[::-1].copy(), stack, False)))


@observe.property("Where one of the two screens is black, the newest frame should be that of the other screen alone.")
def larger_than_black(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    screens[0] = 0
    return survives(lambda: agree(student(screens, stack, False), student(screens[[1, 1]].copy(), stack, False)))


@observe.property("Two screens of one and the same grey level should give a newest frame of that level everywhere.")
def flat_screens(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    level = int(rng.integers(100, 256))
    return survives(lambda: agree(student(np.full_like(screens, level), stack, False)[-1], np.full((3, 4), level)))


@observe.property("A screen of one color alone should be 76 where it is red (255), 150 where green, and 29 where blue.")
def pure_colors(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)

    def levels() -> list[int]:
        return [int(student(color, stack, False)[-1, 0, 0]) for color in 255 * _one_of_three(screens)]

    return survives(lambda: levels() == [76, 150, 29])


@observe.property("What is lit in one block should be seen in one pixel of the newest frame, at the block's own place.")
def blocks_keep_their_places(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    row, column = int(rng.integers(3)), int(rng.integers(4))
    screens[:] = 0
    screens[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 200
    expected = np.zeros((3, 4))
    expected[row, column] = 200
    return survives(lambda: agree(student(screens, stack, False)[-1], expected))


@observe.property("It should not matter where in a block a pixel is: the pixels of one block may change places.")
def blocks_forget_places(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    other = screens.copy()
    other[:, :3, :3] = np.roll(screens[:, :3, :3], (1, 1), axis=(1, 2))
    return survives(lambda: agree(student(screens, stack, False), student(other, stack, False)))


@observe.property("A block with one pixel of level 90, black otherwise, should have 10: the mean of its nine pixels.")
def one_of_nine(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    screens[:] = 0
    screens[:, 1, 1] = 90
    return survives(lambda: int(student(screens, stack, False)[-1, 0, 0]) == 10)


def _one_of_three(screens: Bytes) -> Bytes:
    """Two screens all red, two all green, two all blue, each of them 1: [3, 2, H, W, 3]."""
    return np.stack([np.broadcast_to(color, screens.shape) for color in np.eye(3, dtype=np.uint8)])


@observe.property("Blocks need not be square: screens of other sizes go wrong.", edge=True)
def other_sizes(student: Observe, rng: Generator) -> bool:
    screens = even_blocks(rng)
    stack = np.zeros((4, 3, 2), dtype=np.uint8)
    return survives(lambda: agree(student(screens, stack, False), observe.reference(screens, stack, False)))


def even_blocks(rng: Generator) -> Bytes:
    """Two grey screens [2, 9, 12, 3] that are alike, with no mean of 3 x 6 pixels half way between whole numbers."""
    grey = rng.integers(0, 255, (3, 3, 2, 6))
    grey[:, 0, :, 0] += grey.sum((1, 3)) % 18 == 9
    return np.broadcast_to(grey.reshape(9, 12)[None, :, :, None], (2, 9, 12, 3)).astype(np.uint8)


@observe.property(
    "The numbers are right, and not bytes: the observation should be of type uint8, as the stack is. A million of them "
    "in a longer type fill a memory that bytes would leave half empty.",
    edge=True,
)
def bytes_stay_bytes(student: Observe, rng: Generator) -> bool:
    screens, stack, _ = moment(rng)
    return survives(lambda: all(student(screens, stack, first).dtype == np.uint8 for first in (False, True)))


def greys(screens: Bytes) -> Floats:
    """The grey levels [2, H, W] of two screens, whole numbers."""
    return np.asarray(np.rint(screens @ WEIGHTS))


def means(screen: Floats, shape: tuple[int, ...]) -> Floats:
    """The means over blocks, not rounded: [H, W] to `shape`."""
    height, width = shape
    blocks = screen.reshape(height, screen.shape[0] // height, width, screen.shape[1] // width)
    return np.asarray(blocks.mean((1, 3)))


def stacked(newest: Floats, m: Moment) -> Bytes:
    """The newest frame behind those that came before, or behind zeros."""
    older = np.zeros_like(m.stack[1:]) if m.first else m.stack[1:]
    return np.concatenate([older, np.rint(newest)[None].astype(np.uint8)])


def right_newest(m: Moment) -> Floats:
    """What the newest frame should be, not rounded."""
    return means(greys(m.screens).max(0), m.stack.shape[1:])


@observe.mistake(
    "concept",
    "You look at the last screen alone; tempting, because it is the newest. A sprite that is drawn in every second "
    "frame is then never there, or always: take the larger of the two screens, pixel by pixel.",
)
def last_screen_only(m: Moment) -> Bytes:
    return stacked(means(greys(m.screens)[1], m.stack.shape[1:]), m)


@observe.mistake(
    "concept",
    "You take the mean of the two screens; tempting, because a mean of neighbours looks like the gentler choice. What "
    "blinks is then half as bright, and everything that moves has a ghost. Take the larger of the two.",
)
def mean_of_two(m: Moment) -> Bytes:
    return stacked(means(greys(m.screens).mean(0), m.stack.shape[1:]), m)


@observe.mistake(
    "order",
    "You make the screens small first and compare them then; tempting, because there is less to compare. A shot that "
    "moves within a block is then counted once, where the larger of the two large screens has it twice.",
)
def resized_before_the_maximum(m: Moment) -> Bytes:
    return stacked(np.maximum(*(means(grey, m.stack.shape[1:]) for grey in greys(m.screens))), m)


@observe.mistake(
    "order",
    "You take the larger of each color, and make that grey; tempting, because the screens come in color. A red sprite "
    "over a blue one then gives a violet that neither screen had, brighter than both. Grey first, then the larger.",
)
def maximum_of_colors(m: Moment) -> Bytes:
    return stacked(means(np.rint(m.screens.max(0) @ WEIGHTS), m.stack.shape[1:]), m)


@observe.mistake(
    "concept",
    "You compare the newest small frame with the one before it in the stack; tempting, because that is where the last "
    "two frames lie. Frames of the stack are four screens apart: the maximum belongs to the last two *screens*.",
)
def maximum_with_the_stack(m: Moment) -> Bytes:
    return stacked(np.maximum(means(greys(m.screens)[1], m.stack.shape[1:]), m.stack[-1]), m)


@observe.mistake(
    "order",
    "Your newest frame is the first one; tempting, because it is the one that matters most. The docstring has the "
    "oldest first, and a network that was trained with one order sees time run backward in the other.",
)
def newest_first(m: Moment) -> Bytes:
    older = np.zeros_like(m.stack[:-1]) if m.first else m.stack[:-1]
    return np.concatenate([np.rint(right_newest(m))[None].astype(np.uint8), older])


@observe.mistake(
    "indexing",
    "You replace the newest frame of the stack, and keep the oldest; tempting, because the last place is where the "
    "newest belongs. Then three frames never change again: move all of them on by one place.",
)
def replaces_the_newest(m: Moment) -> Bytes:
    older = np.zeros_like(m.stack[:-1]) if m.first else m.stack[:-1]
    return np.concatenate([older, np.rint(right_newest(m))[None].astype(np.uint8)])


@observe.mistake(
    "termination",
    "Where a game begins, the frames of the game before are still in your stack; tempting, because the screens keep "
    "coming. The network would see a ball jump across the screen that never moved that way.",
)
def keeps_the_game_before(m: Moment) -> Bytes:
    return stacked(right_newest(m), m._replace(first=False))


@observe.mistake(
    "termination",
    "Where a game begins, you show its first frame four times; tempting, and some packages do so. Here frames from "
    "before the start are zero, which also tells a beginning from a standstill.",
)
def repeats_the_first(m: Moment) -> Bytes:
    newest = np.rint(right_newest(m)).astype(np.uint8)
    return np.stack([newest] * 4) if m.first else stacked(right_newest(m), m)


@observe.mistake(
    "concept",
    "Your grey is the plain mean of red, green and blue; tempting, because there are three of them. The weights are "
    "0.299, 0.587 and 0.114: green looks brighter than blue.",
)
def plain_grey(m: Moment) -> Bytes:
    return stacked(means(np.rint(m.screens.mean(-1)).max(0), m.stack.shape[1:]), m)


@observe.mistake(
    "concept",
    "You take one pixel of each block; tempting, because it is one line (`[::k, ::k]`). A ball of two pixels then "
    "comes and goes as it crosses the grid: take the mean of the block.",
)
def one_pixel_of_each(m: Moment) -> Bytes:
    larger = greys(m.screens).max(0)
    (H, W), (h, w) = larger.shape, m.stack.shape[1:]
    return stacked(larger[:: H // h, :: W // w], m)


@observe.mistake(
    "numerics",
    "You add up bytes as bytes; tempting, because nothing complains. A sum beyond 255 begins at 0 again: add in a "
    "larger type, which `mean` does by itself.",
)
def sums_in_bytes(m: Moment) -> Bytes:
    larger = greys(m.screens).max(0).astype(np.uint8)
    (H, W), (h, w) = larger.shape, m.stack.shape[1:]
    sums = larger.reshape(h, H // h, w, W // w).sum((1, 3), dtype=np.uint8)
    return stacked(sums / (H // h * W // w), m)


@observe.mistake(
    "numerics",
    "You round once, at the end; tempting, because a number that is not rounded is the better one. The emulator's grey "
    "levels are whole numbers, and the docstring rounds them, too: round the grey, and then the mean.",
)
def grey_not_rounded(m: Moment) -> Bytes:
    return stacked(means((m.screens @ WEIGHTS).max(0), m.stack.shape[1:]), m)


@observe.mistake(
    "concept",
    "You take the brightest pixel of each block; tempting, because a larger was asked for a moment ago. That is "
    "between the two screens. Within a block take the mean: how bright a pixel is then says how much of it is covered.",
)
def brightest_of_each_block(m: Moment) -> Bytes:
    larger = greys(m.screens).max(0)
    (H, W), (h, w) = larger.shape, m.stack.shape[1:]
    return stacked(larger.reshape(h, H // h, w, W // w).max((1, 3)), m)


@observe.mistake(
    "order",
    "Your weights are in the order blue, green, red; tempting, because some libraries store colors so. The last axis "
    "of the screens is red, green, blue.",
)
def weights_backward(m: Moment) -> Bytes:
    return stacked(means(np.rint(m.screens @ WEIGHTS[::-1]).max(0), m.stack.shape[1:]), m)


@observe.mistake(
    "numerics",
    "You cut the fractions of the means off; tempting, because `astype(np.uint8)` does it without being asked. Your "
    "grey levels are rounded: round the means, too.",
)
def cuts_off_means(m: Moment) -> Bytes:
    return stacked(np.floor(means(greys(m.screens).max(0), m.stack.shape[1:])), m)


@observe.mistake(
    "numerics",
    "You cut the fractions of the grey levels off; tempting, because a cast to bytes does it without being asked. Your "
    "means are rounded: round the grey levels, too.",
)
def cuts_off_greys(m: Moment) -> Bytes:
    return stacked(means(np.floor(m.screens @ WEIGHTS + 1e-9).max(0), m.stack.shape[1:]), m)


@observe.mistake(
    "numerics",
    "You cut off fractions; tempting, because `astype(np.uint8)` does it without being asked. Round to the nearest "
    "whole number, the grey levels and the means.",
)
def cuts_off(m: Moment) -> Bytes:
    larger = np.floor(m.screens @ WEIGHTS + 1e-9).max(0)
    return stacked(np.floor(means(larger, m.stack.shape[1:])), m)
