"""Games train from their screens: what is learned from is what was shown, in chunks of any size, and killed or not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import command
from test_training import contents
from torch import Tensor

from trpo_lessons import envs, training
from trpo_lessons.envs.atari.scores import RANDOM_AND_HUMAN, human_normalised
from trpo_lessons.kl import fisher_vector_product, max_kl, mean_kl
from trpo_lessons.policies import Policy
from trpo_lessons.problem import Problem
from trpo_lessons.single_path import Actor
from trpo_lessons.surrogate import Batch, surrogate_gradient, surrogate_value
from trpo_lessons.training.running import loop
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.sampling import game_path
from trpo_lessons.training.sampling.game_path import GameBatch, GamePath, GameStates
from trpo_lessons.training.sampling.game_sampler import GameSampler
from trpo_lessons.training.settings.obs_statistics import FrameMoments
from trpo_lessons.training.settings.policy_for import policy_for
from trpo_lessons.trpo import TrustRegion, trpo_update
from trpo_lessons.value_function import ValueFunction, values_along

TINY: dict[str, Any] = {
    "num_envs": 3,
    "steps_per_iteration": 48,
    "chunk_size": 16,
    "hidden": (5,),
    "value_hidden": (5,),
}
VINE: dict[str, Any] = {"sampling": "vine", "vine_states": 3, "vine_branches": 3, "rollout_length": 4}
NOTHING_SEEN = FrameMoments.empty((52, 40))


def tiny(game: str = "pong", **settings: Any) -> training.TrainConfig:
    return training.preset(game, "smoke", **{**TINY, "threads": 2, **settings})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Watched:
    """A sampler whose games are cut after 14 steps, and everything that its environments returned."""

    def __init__(self, game: str, **settings: Any) -> None:
        self.config = tiny(game, **settings)
        self.sampler = GameSampler(self.config, seeded())
        self.policy = policy_for(self.sampler.envs[0], self.config)
        self.theta = self.policy.initial_theta(seeded(1))
        self.statistics = NOTHING_SEEN
        self.told: list[list[tuple[Any, ...]]] = [[] for _ in self.sampler.envs]
        for env, told in zip(self.sampler.envs, self.told, strict=True):
            env.max_episode_steps = 14
            env.step = self._noting(env.step, told)

    @staticmethod
    def _noting(step: Any, told: list[tuple[Any, ...]]) -> Any:
        def noting(actions: Any) -> Any:
            told.append(step(actions))
            return told[-1]

        return noting

    def sample(self) -> GamePath:
        for told in self.told:
            told.clear()
        return self.sampler.sample(Actor(self.policy, self.theta, self.statistics))

    def column(self, place: int) -> Tensor:
        """What `step` returned at this place, [T, E, ...]: the groups side by side."""
        return torch.cat([torch.from_numpy(np.stack([row[place] for row in told])) for told in self.told], dim=1)

    def info(self, name: str) -> Tensor:
        return torch.cat([torch.from_numpy(np.stack([row[4][name] for row in told])) for told in self.told], dim=1)


@pytest.fixture
def breakout() -> Iterator[Watched]:
    watched = Watched("breakout", num_envs=5, steps_per_iteration=200)
    with closing(watched.sampler):
        yield watched


# ---- what is learned from -------------------------------------------------------------------------------------------


def test_every_stack_is_the_observation_that_was_shown(breakout: Watched) -> None:
    """Across the ends of games and the ends of batches: a batch may begin one to three steps after a game does."""
    for _ in range(3):
        first = torch.cat([group.raw_obs for group in breakout.sampler._groups])
        path = breakout.sample()
        shown = torch.cat([first[None], breakout.column(0)])
        expected = shown[:-1].transpose(0, 1).flatten(0, 1)
        assert path.frames.raw().dtype == torch.uint8
        assert torch.equal(path.frames.raw(), expected)
        assert torch.equal(path.batch(torch.zeros_like(path.rewards)).obs, breakout.statistics.normalise(expected))
        assert torch.equal(path.next_obs, shown[-1])
        assert path.truncated.sum() > 5, "no game ended: the test saw no reset"
        breakout.statistics = path.statistics_after(breakout.statistics)
    assert breakout.statistics.count == 600 / 4


def test_final_observations_are_those_before_the_reset_in_order(breakout: Watched) -> None:
    path = breakout.sample()
    expected = []
    for t in range(breakout.config.rows):
        for told in breakout.told:
            expected += [told[t][4]["final_obs"][e] for e in np.flatnonzero(told[t][3])]
    assert torch.equal(path.final_obs, torch.from_numpy(np.stack(expected)))


def test_samples_are_ordered_game_by_game_like_their_observations(breakout: Watched) -> None:
    breakout.statistics = breakout.sample().statistics_after(breakout.statistics)
    path = breakout.sample()
    steps = torch.arange(path.rewards.numel()).view(path.rewards.shape).float()
    batch = path.batch(steps)
    assert torch.equal(batch.advantages, steps.T.flatten())
    thinned = batch[::7]
    assert torch.equal(thinned.obs, batch.obs[::7])
    assert torch.equal(thinned.actions, batch.actions[::7])
    old = breakout.policy(breakout.theta, batch.obs).log_prob(batch.actions)
    torch.testing.assert_close(batch.log_q, old, rtol=1e-5, atol=1e-6)


def test_the_learner_sees_signs_and_the_log_sees_scores() -> None:
    """An invader is worth 5 to 30 points."""
    watched = Watched("space_invaders", num_envs=2, steps_per_iteration=600)
    with closing(watched.sampler):
        for env in watched.sampler.envs:
            env.max_episode_steps = 290
        path = watched.sample()
        assert watched.column(1).max() >= 5
        assert torch.equal(path.rewards, watched.column(1).sign())
        assert path.episode_returns == tuple(watched.column(1)[:290].sum(0).tolist())
        assert path.episode_lengths == (290, 290)


@pytest.mark.parametrize("ends", [False, True])
def test_a_lost_life_ends_returns_only_where_asked_for_and_never_the_game(ends: bool) -> None:
    watched = Watched("breakout", num_envs=2, steps_per_iteration=160, life_loss_ends=ends)
    with closing(watched.sampler):
        for env in watched.sampler.envs:
            env.max_episode_steps = 1000
        watched.theta = watched.theta.clone()
        watched.theta[-1] += 3  # the button starts the ball
        path = watched.sample()
        lost = watched.info("life_lost")
        assert lost.any(), "no life was lost: the test saw nothing"
        assert torch.equal(path.terminated, watched.column(2) | lost if ends else watched.column(2))
        assert (watched.info("lives")[1:][lost[:-1]] < 5).all(), "the game goes on with fewer lives"


# ---- chunks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem() -> tuple[Policy, Tensor, GameBatch, Batch]:
    """A policy, theta and a batch of games; and the same batch with all stacks made beforehand."""
    watched = Watched("breakout", num_envs=4, steps_per_iteration=200, hidden=(20,))
    with closing(watched.sampler):
        path = watched.sample()
    batch = path.batch(torch.randn(path.rewards.shape, generator=seeded(2)))
    assert isinstance(batch, GameBatch)
    return watched.policy, watched.theta, batch, Batch(batch.obs, batch.actions, batch.advantages, batch.log_q)


def close(chunked: Any, whole: Any) -> bool:
    chunked, whole = torch.as_tensor(chunked).double(), torch.as_tensor(whole).double()
    return bool((chunked - whole).norm() <= 1e-4 * whole.norm())


def test_a_long_path_and_a_short_one_are_seen_alike(breakout: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What networks see of a short path is kept."""
    breakout.statistics = breakout.sample().statistics_after(breakout.statistics)
    path = breakout.sample()
    assert isinstance(path.states, GameStates)
    assert path.states.frames.seen is not None
    monkeypatch.setattr(game_path, "ROOM_FOR_SEEN", 4 * 200 * 4 * 52 * 40 - 1)
    long, at = replace(path), torch.tensor([[3, 4], [39, 0]])
    batch, twin = (each.batch(torch.zeros_like(path.rewards)) for each in (path, long))
    assert isinstance(batch, GameBatch)
    assert isinstance(twin, GameBatch)
    assert twin.frames.seen is None
    for mine, its in ((batch, twin), (path.states, long.states), (path.states_at(at), long.states_at(at))):
        assert torch.equal(mine.obs, its.obs)
        assert torch.equal(mine[1::3].obs, its[1::3].obs)


@pytest.mark.parametrize("chunk_size", [1000, 64, 7])
def test_chunked_equals_whole(chunk_size: int, problem: tuple[Policy, Tensor, GameBatch, Batch]) -> None:
    policy, theta, batch, whole = problem
    new = theta + 0.02 * torch.randn(theta.shape, generator=seeded(3))
    direction = torch.randn(theta.shape, generator=seeded(4))
    assert close(surrogate_value(policy, new, batch, chunk_size=chunk_size), surrogate_value(policy, new, whole))
    assert close(
        surrogate_gradient(policy, theta, batch, chunk_size=chunk_size), surrogate_gradient(policy, theta, whole)
    )
    for kl in (mean_kl, max_kl):
        assert close(kl(policy, theta, new, batch, chunk_size), kl(policy, theta, new, whole))
    product = fisher_vector_product(policy, theta, batch[::3], chunk_size)(direction)
    assert close(product, fisher_vector_product(policy, theta, whole[::3])(direction))
    region = TrustRegion(fisher_stride=2, damping=0.1)
    after, report = trpo_update(Problem(policy, batch, chunk_size=chunk_size), theta, region)
    after_whole, report_whole = trpo_update(Problem(policy, whole), theta, region)
    assert report.accepted
    assert report.backtracks == report_whole.backtracks
    assert close(after, after_whole)


@pytest.mark.parametrize("chunk_size", [1000, 64, 7])
def test_a_value_function_fitted_in_chunks_equals_one_fitted_at_once(
    chunk_size: int, problem: tuple[Policy, Tensor, GameBatch, Batch]
) -> None:
    *_, batch, whole = problem
    returns = batch.advantages.double() + 255 * batch.obs.double().mean((1, 2, 3))
    value, twin = (ValueFunction((4, 52, 40), (20,), seeded(5)) for _ in range(2))
    # So much damping that conjugate gradient converges: unconverged, it makes large differences of small ones.
    value.fit(batch, returns, 2, 1.0, stride=3, chunk_size=chunk_size)
    twin.fit(whole.obs, returns, 2, 1.0, stride=3)
    assert close(value(whole.obs), twin(whole.obs))
    assert (twin(whole.obs) - returns).square().mean() < 0.9 * returns.var(), "nothing was learned: nothing was tested"


def test_statistics_stand_still_between_sampling_and_updating(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def noted(path: GamePath, statistics: Any, *rest: Any) -> Any:
        given.append((path.frames.normalise, statistics))
        return values_along(path, statistics, *rest)

    monkeypatch.setattr(loop, "values_along", noted)
    with closing(Trainer(tiny())) as trainer:
        for _ in range(2):
            before = trainer.statistics
            trainer.iterate()
            [(normalise, statistics)] = given
            given.clear()
            assert statistics is before
            assert normalise.__self__ is before
            assert trainer.statistics is not before


def test_values_along_a_path_of_games(breakout: Watched) -> None:
    breakout.statistics = breakout.sample().statistics_after(breakout.statistics)
    path = breakout.sample()
    value = ValueFunction((4, 52, 40), (5,), seeded(5))
    values, next_values = values_along(path, breakout.statistics, value, 16)
    assert close(values, value(path.batch(path.rewards).obs).view(path.rewards.shape[::-1]).T)
    inside = ~path.truncated[:-1]
    assert torch.equal(next_values[:-1][inside], values[1:][inside])
    assert close(next_values[path.truncated], value(breakout.statistics.normalise(path.final_obs)))
    last = ~path.truncated[-1]
    assert close(next_values[-1][last], value(breakout.statistics.normalise(path.next_obs))[last])


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", envs.GAMES)
def test_every_game_trains(game: str) -> None:
    with closing(Trainer(tiny(game))) as trainer:
        before = trainer.theta
        rows = [trainer.iterate() for _ in range(2)]
        assert any(row["accepted"] for row in rows) or {row["reason"] for row in rows} == {
            "the gradient is zero: nothing to improve"
        }
        assert trainer.theta.shape == before.shape
        assert rows[-1]["total_steps"] == 96


@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("pong", {"num_envs": 3, "threads": 2, "sticky_actions": 0.25}),
        ("breakout", {"num_envs": 5, "threads": 3, "sticky_actions": 0.25, "life_loss_ends": True, "chunk_size": 16}),
        ("pong", {"num_envs": 4, "threads": 2, "sticky_actions": 0.25, **VINE}),
    ],
)
def test_killed_and_resumed_it_is_the_run_it_would_have_been(
    game: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    # Five units: a width with which matrix products depend on where in memory theta lies.
    start = ["train", game, "--preset", "smoke", "--iterations", 3, "--steps-per-iteration", 20 * settings["num_envs"]]
    settings = {"hidden": 5, "value_hidden": 5, "sampling": "single-path", **settings}
    start += ["--sampling", settings.pop("sampling")]
    start += [f"--set={name}={value}" for name, value in settings.items()]
    assert command(*start, "--out", tmp_path / "whole").status == 0
    assert command(*start, "--out", tmp_path / "killed", kill_at=9).status == -9
    assert 0 < training.load_run(tmp_path / "killed").iteration < 3
    assert command("resume", tmp_path / "killed").status == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_worker_that_dies_ends_the_run_with_a_word_on_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(trainer: Trainer) -> Any:
        for env in trainer.sampler.envs[1:]:
            for process_id in env._workers.process_ids:
                os.kill(process_id, signal.SIGKILL)
        return iterate(trainer)

    iterate = Trainer.iterate
    monkeypatch.setattr(Trainer, "iterate", dying)
    with pytest.raises(
        training.RunError, match=rf"its worker process \d+ ended .*go on with: trpo-lessons resume {tmp_path}/run"
    ):
        training.train(tiny(), tmp_path / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("games") / "run"
    training.train(tiny("breakout", iterations=1, height=42, width=32, actions="minimal"), folder)
    return folder


def test_evaluation_plays_with_the_run_s_own_settings_and_samples(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are what the environment is made with, and the actions are those that it is given."""
    made, played = [], []

    def make(*arguments: Any, **settings: Any) -> Any:
        made.append(make_env(*arguments, **settings))
        step = made[-1].step
        made[-1].step = lambda actions: played.append(np.array(actions)) or step(actions)
        return made[-1]

    make_env = envs.make
    monkeypatch.setattr(envs, "make", make)
    loaded = training.load_run(run)
    of_seed: dict[Any, Any] = {}
    for seed, deterministic in ((0, None), (0, False), (1, None), (0, True)):
        played.clear()
        result = training.evaluate(loaded, 2, seed, time_limit=20, deterministic=deterministic)
        assert (result.lengths, result.deterministic) == ((20, 20), deterministic is True)
        of_seed[seed, deterministic] = np.stack(played)
        assert made[-1].single_observation_space.shape == (4, 42, 32)
        assert made[-1].single_action_space.n == 4, "Breakout's minimal actions"
    assert np.array_equal(of_seed[0, None], of_seed[0, False]), "games are sampled unless told otherwise"
    assert not np.array_equal(of_seed[0, None], of_seed[0, True])
    alike = (of_seed[0, None] == of_seed[1, None]).mean()
    assert alike < 0.6, "forty draws of four actions, each as likely: a quarter, with a standard error of 0.07"
    assert len(np.unique(of_seed[0, None])) == 4, "a first policy is nearly uniform: forty draws miss none of the four"


def test_evaluate_tells_scores_of_whole_games_and_where_they_stand(run: Path) -> None:
    outcome = command("evaluate", run, "--episodes", 2, "--json")
    facts = json.loads(outcome.stdout)
    assert facts["human_normalised"] == pytest.approx((facts["mean_return"] - 1.2) / (31 - 1.2))
    assert all(score == int(score) >= 0 for score in facts["returns"])
    assert min(facts["lengths"]) > 50, "five lives last longer"
    text = command("evaluate", run, "--episodes", 1, "--time-limit", 20).stdout
    assert "human-normalised" not in text, "a game of twenty steps is no game"
    assert ", 1 cut by the time limit" in text


def test_the_human_scale_is_that_of_table_1() -> None:
    assert RANDOM_AND_HUMAN.keys() == envs.GAMES.keys()
    for game, (random, human) in RANDOM_AND_HUMAN.items():
        assert human_normalised(game, random) == 0
        assert human_normalised(game, human) == 1
    assert human_normalised("pong", 20.9) == pytest.approx(41.3 / 17.4)


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", envs.GAMES)
def test_the_paper_s_settings(game: str) -> None:
    config = training.preset(game, "paper")
    assert (config.steps_per_iteration, config.iterations, config.delta, config.gamma) == (100_000, 500, 0.01, 0.99)
    assert (config.value_hidden, config.fisher_stride, config.life_loss_ends) == ((), 10, False)
    assert config.task_settings == {}, "the environment's own settings are the paper's"
    assert not config.normalise_obs
    ours = training.preset(game, "class")
    assert ours.life_loss_ends
    assert ours.normalise_obs


@pytest.mark.parametrize("game", envs.GAMES)
def test_the_paper_s_vine_is_that_of_table_3(game: str) -> None:
    config = training.preset(game, "paper", sampling="vine")
    assert (config.steps_per_iteration, config.vine_branches, config.iterations) == (400_000, 4, 500)
    assert config.branch_steps + config.rows * config.num_envs == 400_000
    assert (config.value_hidden, config.hidden, config.delta, config.gamma) == ((), (20,), 0.01, 0.99)
    ours, path = (training.preset(game, "class", sampling=sampling) for sampling in ("vine", "single-path"))
    assert ours.steps_per_iteration == path.steps_per_iteration
    assert ours.life_loss_ends
    thinned = [each.rows * each.num_envs // each.fisher_stride for each in (ours, path)]
    assert thinned[0] == thinned[1], "the Fisher matrix has as many states as on a single path"


def test_the_paper_preset_has_the_paper_s_33500_parameters() -> None:
    config = training.preset("seaquest", "paper")
    with closing(envs.make("seaquest", 1, threads=1, **config.task_settings)) as env:
        assert policy_for(env, config).num_parameters == 33_500


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 9}, "height must be a whole number from 10 to 210, or none, got 9"),
        ({"actions": "all"}, "actions must be joystick, legal or minimal, or none, got 'all'"),
        ({"sticky_actions": 1}, "sticky_actions must be at least 0 and below 1, or none, got 1"),
        ({"life_loss_ends": 1}, "life_loss_ends must be true or false, got 1"),
        ({"normalise_obs": "no"}, "normalise_obs must be true or false, got 'no'"),
        ({"control_cost": 0.1}, "pong has no control_cost; tasks that have it: swimmer, hopper, walker, halfcheetah"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(training.SettingError, match=message):
        training.preset("pong", "smoke", **settings)
    with pytest.raises(training.SettingError, match="hopper has no height; tasks that have it: beam_rider, breakout"):
        training.preset("hopper", "smoke", height=52)
    with pytest.raises(training.SettingError, match="hopper has no lives to lose: life_loss_ends is for games"):
        training.preset("hopper", "smoke", life_loss_ends=True)
