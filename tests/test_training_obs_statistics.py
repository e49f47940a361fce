"""What a network sees of a robot's sensors and of a game's screen."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.training import SettingError, TrainConfig, preset
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.settings.obs_statistics import FrameMoments, restored, statistics_for

NOTHING_SEEN = FrameMoments.empty((5, 6))


def frames(num_frames: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (num_frames, 5, 6), generator=seeded(seed), dtype=torch.uint8)


def test_with_nothing_seen_pixels_go_from_0_to_1() -> None:
    stacks = frames(12).view(3, 4, 5, 6)
    torch.testing.assert_close(NOTHING_SEEN.normalise(stacks), (stacks.double() / 255).float(), rtol=1e-6, atol=0)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_frames_that_were_seen_come_out_with_mean_0_and_together_with_variance_1(sizes: list[int], seed: int) -> None:
    """Whatever the batches they came in; values beyond ten standard deviations cannot occur in so few frames."""
    if sum(sizes) < 2:
        sizes = [2]
    seen = frames(sum(sizes), seed)
    statistics = NOTHING_SEEN
    for part in seen.split(sizes):
        statistics = statistics.including(part)
    assert isinstance(statistics, FrameMoments)
    out = statistics.normalise(seen[:, None]).double().squeeze(1)
    torch.testing.assert_close(out.mean(0), torch.zeros(5, 6).double(), rtol=0, atol=1e-5)
    assert out.square().mean().item() == pytest.approx(1, abs=1e-5)


def test_the_frames_of_a_stack_are_treated_alike_and_a_background_vanishes() -> None:
    background, ball = frames(1, 1), frames(2, 2)
    seen = background.repeat(100, 1, 1)
    seen[::4, 2, 3] = 255 - background[0, 2, 3]  # only this pixel ever changes
    statistics = NOTHING_SEEN.including(seen)
    out = statistics.normalise(torch.cat([background, background, seen[:1], seen[:1]])[None])
    assert torch.equal(out[0, 0], out[0, 1])
    assert torch.equal(out[0, 2], out[0, 3])
    moving = torch.zeros(5, 6, dtype=torch.bool)
    moving[2, 3] = True
    assert out[0][:, ~moving].abs().max() < 1e-4
    assert (out[0, 2, 2, 3] - out[0, 0, 2, 3]).abs() > 5
    assert statistics.normalise(ball[None].repeat(1, 2, 1, 1)).abs().max() == 10, "far away from everything seen"


def test_the_bytes_are_left_as_they_are() -> None:
    stacks = frames(8).view(2, 4, 5, 6)
    before = stacks.clone()
    NOTHING_SEEN.including(frames(50)).normalise(stacks)
    NOTHING_SEEN.normalise(stacks)
    assert torch.equal(stacks, before)
    floats = torch.full((1, 1, 5, 6), 100.0)
    NOTHING_SEEN.normalise(floats)
    assert floats.eq(100).all()


def test_a_screen_has_one_mean_for_all_frames_of_a_stack_and_sensors_one_each() -> None:
    screen = statistics_for(gym.spaces.Box(0, 255, (4, 52, 40), np.uint8))
    assert isinstance(screen, FrameMoments)
    assert screen.mean.shape == (52, 40)
    sensors = statistics_for(gym.spaces.Box(-1, 1, (11,)))
    assert type(sensors) is RunningMoments
    assert sensors.mean.shape == (11,)
    with pytest.raises(SettingError, match="observations must be vectors of numbers or stacks of frames"):
        statistics_for(gym.spaces.Box(-1, 1, (3, 3)))


def test_a_checkpoint_gives_them_back() -> None:
    seen = NOTHING_SEEN.including(frames(9))
    tensors = {"statistics.mean": seen.mean, "statistics.deviations": seen.deviations}
    again = restored(NOTHING_SEEN, tensors, {"statistics_count": seen.count})
    stacks = frames(4).view(1, 4, 5, 6)
    assert torch.equal(again.normalise(stacks), seen.normalise(stacks))
    with pytest.raises(ValueError, match=r"of observations \[5, 6\], not \[11\]"):
        restored(RunningMoments.empty(11), tensors, {"statistics_count": 9})
    with pytest.raises(ValueError, match=r"of observations \[5, 6\], not \[6, 5\]"):
        restored(FrameMoments.empty((6, 5)), tensors, {"statistics_count": 9})


@pytest.mark.parametrize("task", ["cartpole", "pong"])
@pytest.mark.parametrize("wanted", [True, False])
def test_statistics_are_renewed_after_an_iteration_where_they_are_wanted(task: str, wanted: bool) -> None:
    tiny = {"num_envs": 2, "steps_per_iteration": 16, "chunk_size": 16, "threads": 1}
    trainer = Trainer(preset(task, "smoke", normalise_obs=wanted, **tiny))
    trainer.iterate()
    trainer.close()
    seen = {"cartpole": 16, "pong": 16 / 4}[task]  # of games every fourth frame
    assert trainer.statistics.count == (seen if wanted else 0)


def test_runs_from_before_there_was_a_choice_have_normalised() -> None:
    settings = TrainConfig("hopper").to_json()
    del settings["normalise_obs"]
    assert TrainConfig.from_json(settings).normalise_obs
