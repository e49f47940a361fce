"""Episodes that do not end by themselves; how evaluation scores whole ones is in test_training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from trpo_lessons import training
from trpo_lessons.envs.atari.settings import MAX_EPISODE_STEPS
from trpo_lessons.training.running import evaluation
from trpo_lessons.training.sampling.threads import torch_threads


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    config = training.preset("gym:toy_envs:Endless-v0", "smoke", iterations=1, threads=1)
    return training.train(config, tmp_path_factory.mktemp("endless") / "run")


def test_an_episode_without_an_end_is_given_up(endless: training.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ENDLESS", 25)
    told = r"3 of 3 episodes of gym:toy_envs:Endless-v0 have not ended after 25 steps; cut them, or wait for longer"
    with pytest.raises(training.RunError, match=told):
        training.evaluate(endless, 3)


def test_no_task_of_our_own_is_taken_for_endless() -> None:
    assert evaluation.ENDLESS > MAX_EPISODE_STEPS


def test_a_time_limit_cuts_episodes_where_it_says(endless: training.Run, tmp_path: Path) -> None:
    result = training.evaluate(endless, 2, time_limit=7)
    assert result.lengths == (7, 7)
    assert result.returns == (7.0, 7.0)
    config = training.preset("cartpole", "smoke", iterations=1, threads=1)
    run = training.train(config, tmp_path / "run")
    whole = training.evaluate(run, 20)
    limit = sorted(whole.lengths)[10]
    cut = training.evaluate(run, 20, time_limit=limit)
    assert cut.lengths == tuple(min(length, limit) for length in whole.lengths)
    assert cut.returns == tuple(float(length) for length in cut.lengths), "cart-pole pays 1 for every step"
    assert training.evaluate(run, 20, time_limit=10_000) == whole


def test_a_time_limit_is_at_least_one_step(endless: training.Run) -> None:
    with pytest.raises(ValueError, match="time_limit must be at least 1, got 0"):
        training.evaluate(endless, 2, time_limit=0)


def test_an_environment_that_can_no_longer_be_made(endless: training.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("the wind tunnel is gone")

    monkeypatch.setattr(gymnasium, "make", broken)
    with pytest.raises(
        training.RunError, match=r"run: gym:toy_envs:Endless-v0 cannot be made: the wind tunnel is gone"
    ):
        training.load_run(endless.folder)


@pytest.mark.parametrize("fails", [False, True])
def test_torch_computes_with_one_thread_while_episodes_are_played(
    fails: bool, endless: training.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = evaluation.choose_actions

    def watched(*args: Any) -> Any:
        seen.append(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(evaluation, "choose_actions", watched)
    with torch_threads(2):
        try:
            training.evaluate(endless, episodes=2, time_limit=3)
        except KeyboardInterrupt:
            assert fails
        assert torch.get_num_threads() == 2
    assert set(seen) == {1}


def test_more_episodes_than_memory_holds_are_refused(tmp_path: Path) -> None:
    run = training.train(training.preset("cartpole", "smoke", iterations=1, threads=1), tmp_path)
    with pytest.raises(training.RunError, match="need more memory than there is; ask for fewer"):
        training.evaluate(run, 10**14)


@pytest.mark.parametrize("hidden", [(2**31 - 1, 50_000), (2**31 - 1, 2**31 - 1)])
def test_a_wider_policy_than_memory_holds_is_refused(hidden: tuple[int, ...], tmp_path: Path) -> None:
    config = training.preset("hopper", "smoke", hidden=hidden, threads=1)
    with pytest.raises(training.SettingError, match="these settings need more memory than there is"):
        training.train(config, tmp_path / "run")
