"""Frames stored once, stacked when they are used: a batch of 100,000 steps is 0.2 GB, where stacks would be 0.8.

The stack of four frames that an agent saw at step t consists of frames that were new at steps t - 3 to t, except that
frames from before the start of the game are zero. So a path of T steps needs T + 3 frames of each game, and how many
frames of its stack belong to the game.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor


class FrameRecorder:
    """Collects the observations of T steps of E games; `finish` gives them as `FrameStacks`."""

    def __init__(self, num_steps: int, num_envs: int, frame_shape: tuple[int, int], stack: int = 4) -> None:
        # In numpy: what there is to do in a step takes torch longer to begin than to do.
        self._frames = np.empty((num_steps + stack - 1, num_envs, *frame_shape), dtype=np.uint8)
        self._shown = np.full((num_steps, num_envs), stack, dtype=np.uint8)
        self._stack = stack
        self._steps = 0

    def record(self, obs: Tensor, started: Tensor) -> None:
        """The observations of one step, uint8 [E, stack, height, width]; `started` [E]: the first of their games.

        Only the newest frame of each is kept, and of the very first ones all. Raises IndexError beyond T steps.
        """
        t, last, stacks = self._steps, self._steps + self._stack - 1, obs.numpy()
        self._frames[last] = stacks[:, -1]
        if t == 0:
            # Whatever these games showed before, zeros too, is in these frames.
            self._frames[:last] = stacks[:, :-1].swapaxes(0, 1)
        else:
            self._shown[t] = np.where(started.numpy(), 1, np.minimum(self._shown[t - 1] + 1, self._stack))
        self._steps += 1

    def finish(self, normalise: Callable[[Tensor], Tensor]) -> FrameStacks:
        """All of them, to be seen through `normalise`. Raises ValueError when fewer than T steps were recorded."""
        if self._steps != len(self._shown):
            raise ValueError(f"{self._steps} steps were recorded, but room was made for {len(self._shown)}")
        frames, shown = torch.from_numpy(self._frames), torch.from_numpy(self._shown)
        return FrameStacks(frames, shown, torch.arange(shown.numel()), normalise)


class FrameStacks:
    """N observations of E games over T steps, stacked when they are asked for.

    frames   [T + stack - 1, E, height, width]  uint8
    shown    [T, E]  how many frames of each stack, counted from the newest, belong to the game; the others are zero
    samples  [N]  which observations these are: number e * T + t is step t of game e, one game after the other
    normalise  what a network sees of a stack
    seen     [N, stack, height, width]  float32, where what a network sees is kept: see `seen_at_once`

    Slices, and picks by an index tensor, share the frames.
    """

    def __init__(
        self,
        frames: Tensor,
        shown: Tensor,
        samples: Tensor,
        normalise: Callable[[Tensor], Tensor],
        seen: Tensor | None = None,
    ) -> None:
        self.frames = frames
        self.shown = shown
        self.samples = samples
        self.normalise = normalise
        self.seen = seen

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: slice | Tensor) -> Self:
        seen = None if self.seen is None else self.seen[index]
        return type(self)(self.frames, self.shown, self.samples[index], self.normalise, seen)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, stack, height, width]: that of `raw()`, which is not made for this."""
        height, width = self.frames.shape[2:]
        return len(self), len(self.frames) - len(self.shown) + 1, height, width

    def normalised(self) -> Tensor:
        """The observations as a network sees them, float32 [N, stack, height, width]; not to be changed."""
        if self.seen is None:
            return self.normalise(self.raw())
        return self.seen.contiguous(memory_format=torch.channels_last)  # thinned ones are scattered

    def seen_at_once(self, at_a_time: int = 512) -> Self:
        """The same observations, normalised here and now: for those that are looked at several times.

        That is sixteen times the memory of the frames: 33,000 bytes each.
        """
        seen = torch.empty(self.shape, dtype=torch.float32, memory_format=torch.channels_last)
        for first in range(0, len(self), at_a_time):
            part = slice(first, first + at_a_time)
            seen[part] = self[part].normalised()
        return type(self)(self.frames, self.shown, self.samples, self.normalise, seen)

    def raw(self) -> Tensor:
        """The observations, uint8 [N, stack, height, width]."""
        num_steps, num_envs = self.shown.shape
        games, steps = self.samples // num_steps, self.samples % num_steps
        places = torch.arange(self.shape[1], device=self.samples.device)
        rows = (steps[:, None] + places) * num_envs + games[:, None]
        stacks = self.frames.flatten(0, 1).index_select(0, rows.flatten())  # four times as fast as two indices
        before_start = places < self.shape[1] - self.shown[steps, games].long()[:, None]
        return stacks.index_fill_(0, before_start.flatten().nonzero().flatten(), 0).view(self.shape)

    def to(self, device: str) -> Self:
        """The same observations on another device; only the frames travel, not the stacks."""
        if self.frames.device == torch.device(device):
            return self
        return type(self)(self.frames.to(device), self.shown.to(device), self.samples.to(device), self.normalise)
