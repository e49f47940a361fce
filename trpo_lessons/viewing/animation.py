"""Pictures in a row as an animated GIF that runs at the pace of the simulation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trpo_lessons.viewing.files import write_whole

CAPTION_HEIGHT = 24  # pixels


@dataclass(frozen=True)
class Frame:
    """A picture [H, W, 3], the line above it, and for how many seconds it is shown."""

    picture: NDArray[np.uint8]
    caption: str
    seconds: float


def save_gif(path: Path, film: Sequence[Frame]) -> None:
    """Write the frames, all of one size.

    A GIF counts in hundredths of a second; the roundings do not add up. Raises OSError when the disk refuses.
    """
    frames = [_captioned(frame) for frame in film]
    palette = _common_palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    ends = np.round(100 * np.cumsum([frame.seconds for frame in film])).astype(int)
    durations = (10 * np.diff(ends, prepend=0)).tolist()  # ms
    data = io.BytesIO()
    indexed[0].save(data, format="gif", save_all=True, append_images=indexed[1:], duration=durations, loop=0)
    write_whole(path, data.getvalue())


def _captioned(frame: Frame) -> Image.Image:
    height, width, _ = frame.picture.shape
    image = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    image.paste(Image.fromarray(frame.picture), (0, CAPTION_HEIGHT))
    ImageDraw.Draw(image).text((8, CAPTION_HEIGHT // 2), frame.caption, fill="black", font=_font(), anchor="lm")
    return image


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)  # matplotlib brings it along


def _common_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One set of 256 colors for all frames, from a few of them: with a set of its own each frame would flicker."""
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(len(frames), 6)).astype(int)]
    width, height = chosen[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for row, frame in enumerate(chosen):
        sheet.paste(frame, (0, row * height))
    return sheet.quantize(256, dither=Image.Dither.NONE)
