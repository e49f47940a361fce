"""A film keeps its pictures, its captions and its pace."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from trpo_lessons.viewing import WIDTH
from trpo_lessons.viewing.animation import CAPTION_HEIGHT, Frame, gif


def picture(number: int, width: int = WIDTH) -> NDArray[np.uint8]:
    """A white picture with a black square that moves to the right."""
    pixels = np.full((60, width, 3), 255, dtype=np.uint8)
    pixels[20:40, 5 * number : 5 * number + 20] = 0
    return pixels


def decoded(data: bytes) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Pictures and durations (ms)."""
    image = Image.open(io.BytesIO(data))
    assert image.info["loop"] == 0, "it plays for ever"
    pictures, durations = [], []
    for frame in ImageSequence.Iterator(image):
        pictures.append(np.array(frame.convert("RGB")))
        durations.append(frame.info["duration"])
    return pictures, durations


def test_every_picture_comes_back() -> None:
    film = [Frame(picture(i), f"step {i}", 0.04) for i in range(10)]
    pictures, durations = decoded(gif(film))
    assert durations == [40] * 10
    for frame, found in zip(film, pictures, strict=True):
        assert found.shape == (60 + CAPTION_HEIGHT, WIDTH, 3)
        np.testing.assert_allclose(found[CAPTION_HEIGHT:], frame.picture, atol=4)
    captions = {found[:CAPTION_HEIGHT].tobytes() for found in pictures}
    assert len(captions) == 10
    assert all((found[:CAPTION_HEIGHT] < 100).any() for found in pictures)


def test_the_roundings_of_its_pace_do_not_add_up() -> None:
    """A thirtieth of a second is no whole number of hundredths."""
    _, durations = decoded(gif([Frame(picture(i), "", 1 / 30) for i in range(60)]))
    assert set(durations) == {30, 40}
    assert abs(sum(durations) - 2000) <= 10


def test_colors_stay_close_to_what_they_were() -> None:
    red, green = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, 60))
    colorful = np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)
    (found,), _ = decoded(gif([Frame(colorful, "all colors", 1.0)]))
    difference = found[CAPTION_HEIGHT:].astype(int) - colorful
    assert np.abs(difference).mean() < 8


def test_a_small_picture_leaves_room_for_its_caption() -> None:
    (found,), _ = decoded(gif([Frame(picture(1, width=80), "gym:SomeLongName-v0, iteration 200, episode 1", 1.0)]))
    assert found.shape[1] == WIDTH
    middle = found[CAPTION_HEIGHT:, (WIDTH - 80) // 2 : (WIDTH + 80) // 2]
    np.testing.assert_allclose(middle, picture(1, width=80), atol=4)
    assert (found[:CAPTION_HEIGHT, 100:] < 100).any(), "the caption goes on beside the picture"
