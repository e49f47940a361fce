"""A game's screen, and beside it how likely each action is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.animation import font
from trpo_lessons.viewing.style import BLACK, BLUE

Choices = Sequence[Sequence[str]]
"""What there is to choose, choice by choice: of a joystick three, otherwise one."""

JOYSTICK: Choices = (("left", "none", "right"), ("up", "none", "down"), ("no fire", "fire"))
LABEL_WIDTH = 90  # pixels
MARGIN = 12
TALLEST_ROW = 28


class GameDrawing:
    """Draws pictures of the size that all animations have."""

    def __init__(self, choices: Choices) -> None:
        """`choices`: JOYSTICK, or the names of the actions."""
        self._choices = choices
        # A gap of half a row sets choices apart.
        self._row = min(TALLEST_ROW, HEIGHT / (sum(map(len, choices)) + 0.5 * len(choices)))

    def __call__(self, screen: NDArray[np.uint8], probabilities: Sequence[NDArray[np.floating]]) -> NDArray[np.uint8]:
        """The picture [HEIGHT, WIDTH, 3] of a `screen` [210, 160, 3] and the probabilities of each choice."""
        picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        shown = Image.fromarray(screen).resize((round(HEIGHT * 160 / 210), HEIGHT), Image.Resampling.NEAREST)
        picture.paste(shown)
        draw, left, top = ImageDraw.Draw(picture), shown.width + MARGIN + LABEL_WIDTH, 0.0
        full = WIDTH - MARGIN - left
        for names, likely in zip(self._choices, probabilities, strict=True):
            top += 0.25 * self._row
            for name, p in zip(names, likely, strict=True):
                middle = top + 0.5 * self._row
                draw.text((left - 6, middle), name, fill=BLACK, font=font(), anchor="rm")
                bar = (left, middle - 0.3 * self._row, left + full * float(p), middle + 0.3 * self._row)
                draw.rectangle(bar, fill=BLUE)
                draw.rectangle((bar[0], bar[1], left + full, bar[3]), outline=BLACK)
                top += self._row
            top += 0.25 * self._row
        return np.array(picture)
