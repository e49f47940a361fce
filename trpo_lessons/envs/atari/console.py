"""One game: the emulator with frame skip, the maximum over two frames, four stacked frames, save and restore."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import ale_py
import numpy as np
from numpy.typing import NDArray

from trpo_lessons.envs.atari.resize import AreaResize
from trpo_lessons.envs.atari.settings import FIRE, FRAME_SKIP, NOOP, SCREEN_HEIGHT, SCREEN_WIDTH, AtariSettings

Bytes = NDArray[np.uint8]

HEADER = 8  # bytes: length and checksum
EMULATOR_BYTES = 16_384  # room for a saved emulator: 14,450 at most were seen, half of them its random generator


class Console:
    """Plays one game in arrays that it is given, so that they can lie in memory shared with another process.

    frames     uint8 [4, height, width]  the last four frames, the oldest first; zero before the start of the game
    screen     uint8 [210, 160]  what the newest of them was made of
    emulator   uint8 [EMULATOR_BYTES]  written by `save`, read by `restore`

    These three, written into the arrays of another console and followed by `restore`, are a complete state.
    """

    def __init__(self, rom: Path, settings: AtariSettings, frames: Bytes, screen: Bytes, emulator: Bytes) -> None:
        self._rom = rom
        self._settings = settings
        self._frames = frames
        self._screen = screen
        self._emulator = emulator
        self._resize = AreaResize(settings.height, settings.width)
        self._earlier_screen = np.zeros((SCREEN_HEIGHT, SCREEN_WIDTH), dtype=np.uint8)
        self._ale: ale_py.ALEInterface | None = None
        self._has_played = False  # a frame since the last reset

    @property
    def lives(self) -> int:
        """Lives left; 0 throughout in games that have none."""
        return self._running().lives()

    def load(self) -> None:
        """Insert the cartridge: what was played before leaves no trace, which a reset alone does not promise."""
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", 0)  # not that any of these games would draw a number
        self._ale.setFloat("repeat_action_probability", 0.0)  # see vector
        self._ale.loadROM(self._rom)
        self._has_played = False

    def reset(self, no_ops: int) -> None:
        """Start a new game, with so many frames of doing nothing."""
        ale = self._running()
        ale.reset_game()
        if self._settings.fire_reset:
            ale.act(FIRE)
        for _ in range(no_ops):
            ale.act(NOOP)
            if ale.game_over():
                ale.reset_game()
        self._has_played = False  # perhaps; see restore
        ale.getScreenGrayscale(self._screen)
        self._frames[:] = 0
        self._frames[-1] = self._resize(self._screen)

    def step(self, actions: Sequence[int]) -> tuple[float, bool]:
        """Play four frames, each with one of the emulator's 18 actions, or until the game is over: (score, game over).

        A sprite that is drawn in every second frame only is in one of the last two, whence their maximum. The frame in
        which a game ends is not looked at, as in `ale_py`'s own vector environment.
        """
        ale = self._running()
        score = 0.0
        self._has_played = True
        looked_earlier = game_over = False
        for frame, action in enumerate(actions):
            score += ale.act(action)
            game_over = ale.game_over()
            if game_over:
                break
            if frame == FRAME_SKIP - 2:
                ale.getScreenGrayscale(self._earlier_screen)
                looked_earlier = True
            elif frame == FRAME_SKIP - 1:
                ale.getScreenGrayscale(self._screen)
        if looked_earlier:
            np.maximum(self._screen, self._earlier_screen, out=self._screen)
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = self._resize(self._screen)
        return score, game_over

    def save(self) -> None:
        """Write the emulator's state, with its generator, into its array; the other two arrays are always current."""
        pack_emulator(self._running().cloneState(include_rng=True).serialize(), self._emulator)

    def restore(self) -> None:
        """Go on from what was written into the arrays. Raises ValueError when the emulator's state is damaged.

        Q*bert goes on wrongly when it is restored into an emulator that has not played a frame yet. What the emulator
        shows right after a restore is stale, so nothing looks at it: the frames are part of the state.
        """
        state = ale_py.ALEState(unpack_emulator(self._emulator))
        if self._ale is None:
            self.load()
        if not self._has_played:
            self._running().act(NOOP)
            self._has_played = True
        self._running().restoreState(state)

    def picture(self) -> Bytes:
        """The screen in colour, [210, 160, 3]; that of an earlier moment right after a restore."""
        return self._running().getScreenRGB()

    def _running(self) -> ale_py.ALEInterface:
        if self._ale is None:
            raise RuntimeError("no cartridge is loaded")
        return self._ale


def pack_emulator(saved: bytes, row: Bytes) -> None:
    """Write a saved emulator into a row of EMULATOR_BYTES: length and checksum, the bytes, then zeros."""
    if len(saved) > len(row) - HEADER:
        raise ValueError(f"the emulator's state has {len(saved)} bytes, and there is room for {len(row) - HEADER}")
    row[:HEADER] = np.array([len(saved), zlib.crc32(saved)], dtype="<u4").view(np.uint8)
    row[HEADER : HEADER + len(saved)] = np.frombuffer(saved, dtype=np.uint8)
    row[HEADER + len(saved) :] = 0


def unpack_emulator(row: Bytes) -> bytes:
    """The inverse of `pack_emulator`. Raises ValueError when the row is not what was written."""
    length, checksum = row[:HEADER].view("<u4").tolist()
    saved = row[HEADER : HEADER + length].tobytes()
    if not saved or len(saved) != length or zlib.crc32(saved) != checksum:
        raise ValueError("the saved state of the emulator is damaged")
    return saved
