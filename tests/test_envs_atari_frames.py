"""Frames stored once give back every observation."""

import functools

import numpy as np
import pytest
import torch

from trpo_lessons.envs.atari import make_atari
from trpo_lessons.envs.atari.frames import FrameRecorder


def halved(obs):
    return obs / 2


@functools.cache
def recorded(num_steps=60, num_envs=3, before=10):
    """Observations of a game with a start every 14 steps or so, and the same from the recorder: [T, E, 4, H, W]."""
    env = make_atari("breakout", num_envs, seed=0, threads=1, native=True)
    env.max_episode_steps = 14
    obs, _ = env.reset()
    generator = np.random.default_rng(0)
    started = np.ones(num_envs, dtype=bool)
    recorder = FrameRecorder(num_steps, num_envs, obs.shape[2:])
    all_obs = []
    for t in range(-before, num_steps):
        if t >= 0:
            recorder.record(torch.from_numpy(obs), torch.from_numpy(started))
            all_obs.append(obs)
        action = generator.integers([3, 3, 2], size=(num_envs, 3))
        obs, _, terminated, truncated, _ = env.step(action)
        started = terminated | truncated
    env.close()
    return torch.from_numpy(np.stack(all_obs)), recorder.finish(halved)


@pytest.mark.parametrize("before", [0, 1, 13, 14, 15])  # steps before the first: a game starts there, or soon after
def test_every_observation_comes_back(before):
    obs, stacks = recorded(before=before)
    by_game = obs.transpose(0, 1).flatten(0, 1)
    assert stacks.shape == by_game.shape
    assert len(stacks) == 180
    torch.testing.assert_close(stacks.raw(), by_game, rtol=0, atol=0)
    assert (stacks.shown < 4).any()


def test_slices_and_picks():
    obs, stacks = recorded()
    by_game = obs.transpose(0, 1).flatten(0, 1)
    for index in (slice(10, 90), slice(3, None, 7), torch.tensor([5, 170, 5])):
        torch.testing.assert_close(stacks[index].raw(), by_game[index], rtol=0, atol=0)
    torch.testing.assert_close(stacks[20:100][::3].raw(), by_game[20:100][::3], rtol=0, atol=0)
    torch.testing.assert_close(stacks[7:9].to("cpu").raw(), by_game[7:9], rtol=0, atol=0)
    assert len(stacks[0:0].raw()) == 0


def test_what_a_network_sees_of_them_is_normalised():
    _, stacks = recorded()
    for part in (stacks, stacks[10:90:7], stacks[7:9].to("cpu")):
        assert torch.equal(part.normalised(), part.raw() / 2)


def test_what_is_normalised_at_once_is_kept_and_sliced():
    _, stacks = recorded()
    kept = stacks.seen_at_once(at_a_time=50)
    assert kept.seen is not None
    assert kept.to("cpu") is kept
    parts = [slice(None), slice(20, 90), slice(3, None, 7), torch.tensor([5, 170, 5])]
    for index in parts:
        assert torch.equal(kept[index].normalised(), stacks[index].normalised())
        assert torch.equal(kept[index].raw(), stacks[index].raw())
        assert kept[index].normalised().is_contiguous(memory_format=torch.channels_last)
    assert kept[20:90].normalised().data_ptr() == kept.seen[20:].data_ptr(), "not made again"
    assert torch.equal(kept[20:90][::9].normalised(), stacks[20:90:9].normalised())


def test_a_frame_is_stored_once():
    obs, stacks = recorded()
    assert stacks.frames.shape == (63, 3, 52, 40)
    assert stacks.frames.dtype == torch.uint8
    assert stacks.frames.numel() < 0.27 * obs.numel()
    assert stacks[::2].frames.data_ptr() == stacks.frames.data_ptr()


def test_a_game_of_more_steps_than_a_byte_can_count_keeps_its_frames():
    """The stack at step t, written as a sliding window over frames that are all different from the one before."""
    window = np.lib.stride_tricks.sliding_window_view(np.arange(603) % 251 + 1, 4)  # [600, 4]
    recorder = FrameRecorder(600, 1, (1, 1))
    for t, stack in enumerate(window):
        obs = torch.tensor(stack, dtype=torch.uint8).view(1, 4, 1, 1)
        recorder.record(obs, torch.tensor([t == 0]))
    assert recorder.finish(halved).raw().flatten(1).tolist() == window.tolist()


def test_what_was_recorded_must_fill_the_room_for_it():
    recorder = FrameRecorder(2, 1, (5, 6))
    obs, started = torch.zeros(1, 4, 5, 6, dtype=torch.uint8), torch.tensor([True])
    recorder.record(obs, started)
    with pytest.raises(ValueError, match="1 steps were recorded, but room was made for 2"):
        recorder.finish(halved)
    recorder.record(obs, started)
    with pytest.raises(IndexError):
        recorder.record(obs, started)
