"""Pictures in a row as an animated GIF that runs at the pace of the simulation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trpo_lessons.viewing import WIDTH

CAPTION_HEIGHT = 24  # pixels


@dataclass(frozen=True)
class Frame:
    """A picture [H, W, 3], the line above it, and for how many seconds it is shown."""

    picture: NDArray[np.uint8]
    caption: str
    seconds: float


def gif(film: Sequence[Frame]) -> bytes:
    """The frames, all of one size, as the bytes of a GIF file that plays in a loop.

    A GIF counts in hundredths of a second; the roundings do not add up.
    """
    palette = _common_palette(film)
    first, *others = [_captioned(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in film]
    ends = np.round(100 * np.cumsum([frame.seconds for frame in film])).astype(int)
    durations = (10 * np.diff(ends, prepend=0)).tolist()  # ms
    data = io.BytesIO()
    first.save(data, format="gif", save_all=True, append_images=others, duration=durations, loop=0)
    return data.getvalue()


def _captioned(frame: Frame) -> Image.Image:
    height, width, _ = frame.picture.shape
    full_width = max(width, WIDTH)  # a small picture leaves room for its caption all the same
    image = Image.new("RGB", (full_width, height + CAPTION_HEIGHT), "white")
    image.paste(Image.fromarray(frame.picture), ((full_width - width) // 2, CAPTION_HEIGHT))
    ImageDraw.Draw(image).text((8, CAPTION_HEIGHT // 2), frame.caption, fill="black", font=font(), anchor="lm")
    return image


@cache
def font() -> ImageFont.FreeTypeFont:
    """For words in pictures."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)  # matplotlib brings it along


def _common_palette(film: Sequence[Frame]) -> Image.Image:
    """One set of 256 colors for all frames, from a few of them: with a set of its own each frame would flicker."""
    chosen = [_captioned(film[i]) for i in np.linspace(0, len(film) - 1, min(len(film), 6)).astype(int)]
    width, height = chosen[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for row, frame in enumerate(chosen):
        sheet.paste(frame, (0, row * height))
    return sheet.quantize(256, dither=Image.Dither.NONE)
