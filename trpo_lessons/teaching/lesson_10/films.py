"""Recorded films of games, read frame by frame: the screen, and how likely each action was. Lesson 10, section 6.

`viewing.game_drawing` draws the probabilities as bars beside the screen; here their lengths are measured again. A bar
is a good hundred pixels long when it is full, so that probabilities come back to about a hundredth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.animation import CAPTION_HEIGHT
from trpo_lessons.viewing.game_drawing import JOYSTICK, LABEL_WIDTH, MARGIN, TALLEST_ROW
from trpo_lessons.viewing.style import BLUE

SCREEN_PIXELS = round(HEIGHT * 160 / 210)  # how wide a screen is in a film
MOMENTS = 41  # of a film that can be looked at


@dataclass(frozen=True)
class Moment:
    """One frame of a film: when, the screen [HEIGHT, w, 3], and the probabilities of each choice of the joystick."""

    seconds: float
    screen: Bytes
    probabilities: tuple[Floats, ...]


@lru_cache(maxsize=3)
def moments(path: Path) -> tuple[Moment, ...]:
    """Evenly spaced frames of a film, from the first to the last."""
    with Image.open(path) as film:
        chosen = set(np.linspace(0, film.n_frames - 1, MOMENTS).astype(int).tolist())  # type: ignore[attr-defined]
        seconds, found = 0.0, []
        for number in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(number)
            if number in chosen:
                picture = np.asarray(film.convert("RGB"))[CAPTION_HEIGHT:]
                found.append(Moment(seconds, picture[:, :SCREEN_PIXELS].copy(), probabilities_in(picture)))
            seconds += film.info["duration"] / 1000
    return tuple(found)


def probabilities_in(picture: Bytes) -> tuple[Floats, ...]:
    """The lengths of a picture's bars, as shares of a full one; those of each choice add up to 1 within a pixel each.

    picture [HEIGHT, WIDTH, 3], drawn by `GameDrawing(JOYSTICK)`.
    """
    left = SCREEN_PIXELS + MARGIN + LABEL_WIDTH
    full = WIDTH - MARGIN - left
    row = min(TALLEST_ROW, HEIGHT / (sum(map(len, JOYSTICK)) + 0.5 * len(JOYSTICK)))
    blue = np.array(to_rgb(BLUE)) * 255
    found, top = [], 0.0
    for names in JOYSTICK:
        top += 0.25 * row
        lengths = []
        for _ in names:
            bar = picture[round(top + 0.5 * row), left : left + full + 1].astype(float)
            filled = np.abs(bar - blue).sum(1) < 60  # a film has 256 colors, so that blue may be a little off
            lengths.append(filled.sum() / full)
            top += row
        found.append(np.array(lengths))
        top += 0.25 * row
    return tuple(found)
