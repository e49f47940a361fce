"""Which observation statistics suit an environment: moments of a robot's sensors, or of what games show."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from trpo_lessons.convolution import channels_last
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.training.settings.policy_for import is_picture, observation_shape


class FrameMoments(RunningMoments):
    """The mean of every pixel, [height, width] as all moments are, and one standard deviation for all pixels together.

    Most of a screen is background. In Pong its square is five hundred times the variance of what moves, so that to a
    network which sees the pixels all states are alike, and the Fisher matrix has one direction in which the policy
    changes everywhere at once. Without the background, states differ by what happens in them.

    One scale is enough, and pixels that never change have none of their own.
    """

    def normalise(self, obs: Tensor) -> Tensor:
        """Stacks of frames in bytes [N, stack, height, width] as float32: what differs from the mean frame.

        In units of the standard deviation of all pixels, clipped to +-10; with no statistics, from 0 to 1.
        """
        # Side by side, the frames of a stack cost a convolution half as much. This is done for every chunk: bytes are
        # reordered, which is faster than to reorder floats, and what follows changes the floats in place.
        pixels = channels_last(obs).to(torch.float32, copy=True)
        if self.count < 2:
            return pixels.mul_(1 / 255)  # a quotient takes five times as long as a product
        scale, shift = (number.to(pixels.device) for number in self._scale_and_shift)
        return pixels.mul_(scale).add_(channels_last(shift.expand(1, *obs.shape[1:]))).clamp_(-10, 10)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = (self.deviations.mean() / self.count + 1e-8).rsqrt()
        return scale.float(), (-scale * self.mean).float()


def statistics_for(space: gym.Space[Any]) -> RunningMoments:
    """Statistics that have seen no observation yet. Raises SettingError (one line) where no policy suits `space`."""
    shape = observation_shape(space)
    return FrameMoments.empty(shape[1:]) if is_picture(space) else RunningMoments.empty(shape)


def restored(statistics: RunningMoments, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> RunningMoments:
    """The statistics that a checkpoint holds, of the kind of `statistics`.

    Raises ValueError where they are of observations of another shape.
    """
    mean, deviations = tensors["statistics.mean"], tensors["statistics.deviations"]
    if mean.shape != statistics.mean.shape or deviations.shape != statistics.mean.shape:
        raise ValueError(f"the statistics are of observations {list(mean.shape)}, not {list(statistics.mean.shape)}")
    return type(statistics)(facts["statistics_count"], mean, deviations)
