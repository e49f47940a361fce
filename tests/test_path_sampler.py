"""Groups of environments in threads of their own give what the same groups give one after the other."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.single_path import Actor, SinglePath, sample_single_path
from trpo_lessons.training import TrainConfig, preset
from trpo_lessons.training.sampling.path_sampler import PathSampler, side_by_side
from trpo_lessons.training.settings.policy_for import policy_for

COLUMNS = ("raw_obs", "obs", "actions", "log_q", "rewards", "terminated", "truncated", "final_obs", "next_obs")


def tiny(**settings: Any) -> TrainConfig:
    return preset("hopper", "smoke", **{"num_envs": 5, "steps_per_iteration": 200, "threads": 2, **settings})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_threads_change_nothing_but_the_time_it_takes() -> None:
    """The naive twin follows the groups one after the other, in this thread."""
    config = tiny(threads=3)
    sampler, twin = PathSampler(config, generator()), PathSampler(config, generator())
    policy = policy_for(sampler.envs[0], config)
    pi_old = Actor(policy, policy.initial_theta(generator()), RunningMoments.empty(11))
    assert [env.num_envs for env in sampler.envs] == [2, 2, 1]
    for _ in range(3):
        path = sampler.sample(pi_old)
        parts = []
        for group in twin._groups:
            part = sample_single_path(group.env, pi_old, group.raw_obs, config.rows, group.generator)
            group.raw_obs = part.next_obs
            parts.append(part)
        for name in ("raw_obs", "actions", "log_q", "rewards", "terminated"):
            assert torch.equal(getattr(path, name), torch.cat([getattr(part, name) for part in parts], dim=1)), name
        assert path.num_steps == config.steps_per_iteration
        assert path.episode_lengths == tuple(n for part in parts for n in part.episode_lengths)
    assert path.episode_lengths, "no episode ended: the test saw no reset"
    sampler.close()
    twin.close()


def test_no_two_environments_begin_or_act_alike() -> None:
    config = tiny(num_envs=4, steps_per_iteration=8, threads=4)
    sampler = PathSampler(config, generator())
    policy = policy_for(sampler.envs[0], config)
    path = sampler.sample(Actor(policy, policy.initial_theta(generator()), RunningMoments.empty(11)))
    assert len({tuple(row) for row in path.raw_obs[0].tolist()}) == 4
    noise = path.actions.double() - path.actions.double().mean(1, keepdim=True)
    assert len({tuple(row) for row in noise[0].tolist()}) == 4
    assert sampler.state()["raw_obs"].shape == (4, 11)
    sampler.close()


def test_one_group_where_threads_would_wait_for_the_interpreter() -> None:
    config = preset("cartpole", "smoke", threads=4)
    sampler = PathSampler(config, generator())
    assert [env.num_envs for env in sampler.envs] == [config.num_envs]
    sampler.close()


def test_an_error_in_one_group_reaches_the_caller_and_leaves_no_thread_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    sampler = PathSampler(config, generator())
    policy = policy_for(sampler.envs[0], config)
    calls = iter(range(1000))
    real = sampler.envs[1].step

    def failing(actions: Any) -> Any:
        if next(calls) == 7:
            raise OSError("the simulator is gone")
        return real(actions)

    monkeypatch.setattr(sampler.envs[1], "step", failing)
    theta = policy.initial_theta(generator())
    with pytest.raises(OSError, match="the simulator is gone"):
        sampler.sample(Actor(policy, theta, RunningMoments.empty(11)))
    path = sampler.sample(Actor(policy, theta, RunningMoments.empty(11)))
    assert path.num_steps == config.steps_per_iteration
    sampler.close()


class Counted:
    """Steps of every group, and an error in one of them after its first seven."""

    def __init__(self, sampler: PathSampler, fails: int | None = None) -> None:
        self.steps = [0] * len(sampler.envs)
        self.has_begun = threading.Event()
        for number, env in enumerate(sampler.envs):
            env.step = self._counting(env.step, number, number == fails)

    def _counting(self, step: Any, number: int, fails: bool) -> Any:
        def counting(actions: Any) -> Any:
            self.steps[number] += 1
            if self.steps[number] == 7:
                self.has_begun.set()
                if fails:
                    raise OSError("the simulator is gone")
            return step(actions)

        return counting


@pytest.mark.parametrize("fails", [0, 1])
def test_after_an_error_in_one_group_the_others_do_not_go_on(fails: int) -> None:
    config = tiny(steps_per_iteration=50_000)
    sampler = PathSampler(config, generator())
    counted, policy = Counted(sampler, fails), policy_for(sampler.envs[0], config)
    with pytest.raises(OSError, match="the simulator is gone"):
        sampler.sample(Actor(policy, policy.initial_theta(generator()), RunningMoments.empty(11)))
    assert counted.steps[fails] == 7
    assert counted.steps[1 - fails] < config.rows
    sampler.close()


def test_closing_does_not_wait_for_a_batch_that_nobody_wants() -> None:
    config = tiny(steps_per_iteration=50_000)
    sampler = PathSampler(config, generator())
    counted, policy = Counted(sampler), policy_for(sampler.envs[0], config)
    sampled: list[SinglePath] = []

    def sample() -> None:
        with contextlib.suppress(Exception):
            sampled.append(sampler.sample(Actor(policy, policy.initial_theta(generator()), RunningMoments.empty(11))))

    sampling = threading.Thread(target=sample)
    sampling.start()
    assert counted.has_begun.wait(60)
    sampler.close()
    sampling.join()
    assert not sampled
    assert max(counted.steps) < config.rows


def test_final_observations_are_in_order_of_step_and_environment() -> None:
    """`values_along` relies on it. Every final observation here is 100 t + e, written by hand."""

    def group(first: int, width: int, truncated: list[tuple[int, int]]) -> SinglePath:
        rows, blank = 6, torch.zeros(6, width)
        ends = torch.zeros(rows, width, dtype=torch.bool)
        for t, e in truncated:
            ends[t, e - first] = True
        final = torch.tensor([[100.0 * t + e] for t, e in sorted(truncated)], dtype=torch.float64).reshape(-1, 1)
        wide: Tensor = torch.zeros(rows, width, 1)
        return SinglePath(
            raw_obs=wide,
            obs=wide,
            actions=blank,
            log_q=blank,
            rewards=blank,
            terminated=ends,
            truncated=ends,
            final_obs=final,
            next_obs=wide[0],
            episode_returns=(float(first),),
            episode_lengths=(first,),
            seconds={"acting": first},
        )

    joined = side_by_side([group(0, 2, [(1, 0), (4, 1), (4, 0)]), group(2, 3, []), group(5, 1, [(0, 5), (4, 5)])])
    steps = joined.truncated.nonzero().tolist()
    assert joined.final_obs.flatten().tolist() == [100 * t + e for t, e in steps]
    assert joined.final_obs.flatten().tolist() == [5, 100, 400, 401, 405]
    assert all(getattr(joined, name).shape[1] == 6 for name in COLUMNS[:7])
    assert joined.episode_lengths == (0, 2, 5)
    assert joined.seconds == {"acting": 7 / 3}


def test_a_state_restores_every_group() -> None:
    config = tiny(threads=3)
    sampler, other = PathSampler(config, generator()), PathSampler(config, torch.Generator().manual_seed(9))
    policy = policy_for(sampler.envs[0], config)
    theta, statistics = policy.initial_theta(generator()), RunningMoments.empty(11)
    sampler.sample(Actor(policy, theta, statistics))
    other.load_state(sampler.state())
    mine, its = sampler.sample(Actor(policy, theta, statistics)), other.sample(Actor(policy, theta, statistics))
    assert all(torch.equal(getattr(mine, name), getattr(its, name)) for name in COLUMNS)
    with pytest.raises(ValueError, match="zip"):
        PathSampler(tiny(threads=2), generator()).load_state(sampler.state())
    sampler.close()
    other.close()
