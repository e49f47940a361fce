"""A screen made smaller: every pixel of the small picture is the mean over its area of the large one.

OpenCV calls this INTER_AREA. The sums are taken in its order and in its precision, so that a frame is the same to the
bit as one of `ale_py`'s own vector environment, which uses OpenCV.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from trpo_lessons.envs.atari.settings import SCREEN_HEIGHT, SCREEN_WIDTH


class AreaResize:
    """From [210, 160] to [height, width], uint8."""

    def __init__(self, height: int, width: int) -> None:
        self._rows = area_weights(SCREEN_HEIGHT, height)
        self._columns = area_weights(SCREEN_WIDTH, width)
        self._factor = np.float32(1.0)
        # OpenCV has ways of its own for sizes that divide the screen's: it adds up whole numbers and divides once, and
        # at half the size one half is always rounded up, not to the even number.
        if SCREEN_HEIGHT % height == SCREEN_WIDTH % width == 0:
            self._rows.data[:] = self._columns.data[:] = 1.0
            self._factor = np.float32(height * width / (SCREEN_HEIGHT * SCREEN_WIDTH))
        self._half_size = (2 * height, 2 * width) == (SCREEN_HEIGHT, SCREEN_WIDTH)
        # Means of 2, 4, 8, ... whole pixels are exact in whatever order they are added up.
        self._whole = SCREEN_WIDTH // width
        self._is_exact = SCREEN_WIDTH % width == 0 and self._whole in (2, 4, 8, 16, 32)
        self._shares = self._columns.data[: self._whole]

    def __call__(self, screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[210, 160] -> [height, width], in a new array."""
        means = (self._rows @ self._narrow(screen)) * self._factor  # [height, width]
        rounded: NDArray[np.uint8] = (np.floor(means + 0.5) if self._half_size else np.rint(means)).astype(np.uint8)
        return rounded

    def _narrow(self, screen: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[210, 160] -> [210, width]."""
        if self._is_exact:
            of_each: NDArray[np.float32] = screen.astype(np.float32).reshape(-1, self._whole) @ self._shares
            return of_each.reshape(SCREEN_HEIGHT, -1)
        return np.ascontiguousarray((self._columns @ screen.T.astype(np.float32)).T)


def area_weights(length: int, shorter: int) -> sparse.csr_matrix:
    """The share of each of `length` pixels in the mean that is one of `shorter` pixels: [shorter, length], float32.

    As in OpenCV's computeResizeAreaTab, shares below a thousandth of a pixel are left out.
    """
    scale = length / shorter
    triples = []
    for i in range(shorter):
        begin = i * scale
        end, area = begin + scale, min(scale, length - begin)
        first, last = math.ceil(begin), min(math.floor(end), length - 1)
        if first - begin > 1e-3:
            triples.append((i, first - 1, (first - begin) / area))
        triples += [(i, pixel, 1.0 / area) for pixel in range(first, last)]
        if end - last > 1e-3:
            triples.append((i, last, min(end - last, 1.0, area) / area))
    rows, columns, shares = zip(*triples, strict=True)
    return sparse.csr_matrix((np.array(shares, dtype=np.float32), (rows, columns)), shape=(shorter, length))
