"""The vine of games: trunks and branches against naive twins, what is shared, what is counted, what it converges to."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vine_games
from torch import Tensor
from vine_games import (
    GAMMA,
    NOTHING_SEEN,
    actor,
    before_a_loss,
    grow,
    naive_branch,
    policy_and_theta,
    put_into,
    seeded,
    tiny,
    twice_the_same,
)

from trpo_lessons import envs
from trpo_lessons.envs import State
from trpo_lessons.envs.atari import make_atari, workers
from trpo_lessons.envs.rollouts import rows_of
from trpo_lessons.policies import Policy
from trpo_lessons.rollout_set import all_actions_surrogate, self_normalised_surrogate
from trpo_lessons.single_path import Actor
from trpo_lessons.surrogate import surrogate_gradient
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.sampling import game_vine_sampler
from trpo_lessons.training.sampling.game_path import GamePath
from trpo_lessons.training.sampling.game_sampler import GameSampler
from trpo_lessons.training.sampling.game_vine_sampler import GameVineSampler
from trpo_lessons.vine import Vine, choose_states


@pytest.fixture(autouse=True)
def _few_branches_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that branches have to wait for each other; and cartridges take a tenth of a second each."""
    monkeypatch.setattr(game_vine_sampler, "WIDTH", 4)


@pytest.fixture
def _many_branches_side_by_side(monkeypatch: pytest.MonkeyPatch, _few_branches_side_by_side: None) -> None:
    monkeypatch.setattr(game_vine_sampler, "WIDTH", 18)


@contextmanager
def sampler_of(seed: int = 3, **settings: Any) -> Iterator[GameVineSampler]:
    with closing(GameVineSampler(tiny(**settings), seeded(seed))) as sampler:
        yield sampler


def weights_of_columns() -> Tensor:
    """Of the newest frame: where on the screen something is. Breakout's paddle is moved by most actions."""
    weights = torch.zeros(4, 52, 40)
    weights[3] = torch.linspace(-1, 1, 40)
    return weights


def value(obs: Tensor) -> Tensor:
    return 10 + (obs * weights_of_columns()).sum((1, 2, 3))


# ---- trunk, states and branches


@pytest.mark.parametrize(
    ("threads", "life_loss_ends", "sticky", "drawn"), [(1, False, 0.0, "uniform"), (2, True, 0.25, "policy")]
)
def test_the_vine_is_a_triple_loop(
    threads: int, life_loss_ends: bool, sticky: float, drawn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With branches that end in all three ways: by their limit, by a lost ball where it counts, by the time limit."""
    noise, draw = [], game_vine_sampler.branch_noise
    monkeypatch.setattr(game_vine_sampler, "branch_noise", lambda *given: noise.append(draw(*given)) or noise[-1])
    settings = {"threads": threads, "life_loss_ends": life_loss_ends, "sticky_actions": sticky, "vine_states": 12}
    with sampler_of(**settings, first_actions=drawn) as sampler:
        vine = grow(sampler, value=value)
    over_early = 0
    with closing(make_atari("breakout", 1, threads=1, sticky_actions=sticky)) as env:
        env.max_episode_steps = int(before_a_loss()["elapsed_steps"][0]) + 6
        for n in range(12):
            for k in range(3):
                start, own = rows_of(vine.saved, np.array([n])), noise[0][:, 3 * n + k]
                first = vine.rollout_set.actions[n, k]
                total, length, over, last = naive_branch(env, actor(), start, first, own, life_loss_ends)
                rest = 0.0 if over else GAMMA**length * value(NOTHING_SEEN.normalise(last[None])).item()
                assert vine.lengths[n, k] == length
                assert vine.rollout_set.q_values[n, k].item() == pytest.approx(total + rest, rel=1e-5)
                over_early += over
    assert (over_early > 0) == life_loss_ends
    assert {1, 4} <= set(vine.lengths.flatten().tolist()), "some reach the time limit, and some their own"


def test_the_trunk_is_the_single_path() -> None:
    with sampler_of(threads=2) as sampler:
        trunk = grow(sampler).trunk
        config = sampler._config
    with closing(GameSampler(config, seeded(3))) as twin:
        put_into(twin, before_a_loss(), 6)
        choose_states(config.rows, config.num_envs, config.vine_states, twin._groups[0].generator)  # drawn first
        path = twin.sample(actor())
    for column in ("actions", "log_q", "rewards", "terminated", "truncated", "final_obs", "next_obs"):
        assert torch.equal(getattr(trunk, column), getattr(path, column)), column
    assert isinstance(trunk, GamePath)
    assert torch.equal(trunk.frames.raw(), path.frames.raw())
    assert path.terminated.any()
    assert path.truncated.any()


def test_branches_begin_in_the_states_of_the_trunk_and_frames_are_stored_once() -> None:
    with sampler_of(threads=2, vine_states=9, sticky_actions=0.25, life_loss_ends=True) as sampler:
        vine = grow(sampler)
    (t, e), trunk = vine.chosen.T, vine.trunk
    assert (t.diff() >= 0).all()
    shown = vine.rollout_set.frames  # type: ignore[attr-defined]
    assert shown.frames.data_ptr() == trunk.frames.frames.data_ptr()
    assert torch.equal(shown.raw(), trunk.frames.raw().view(3, 10, 4, 52, 40)[e, t])
    assert torch.equal(vine.rollout_set.obs, NOTHING_SEEN.normalise(shown.raw()))
    with closing(make_atari("breakout", 9, threads=1, sticky_actions=0.25)) as env:
        env.max_episode_steps = int(before_a_loss()["elapsed_steps"][0]) + 6
        assert torch.equal(torch.from_numpy(env.restore_state(vine.saved)), shown.raw())
        while (t < 10).all():  # a branch that does as the trunk did goes where the trunk went, into new games too
            _, scores, terminated, truncated, infos = env.step(trunk.actions[t, e].numpy())
            assert np.sign(scores).tolist() == trunk.rewards[t, e].tolist()
            assert (terminated | infos["life_lost"]).tolist() == trunk.terminated[t, e].tolist()
            assert truncated.tolist() == trunk.truncated[t, e].tolist()
            t = t + 1
    assert vine.saved["frames"].dtype == vine.saved["screen"].dtype == np.uint8
    assert sum(array.nbytes for array in vine.saved.values()) < 60_000 * 9, "once for each state, not for each branch"


def test_18_branches_are_the_whole_joystick_and_fewer_are_drawn_uniformly() -> None:
    with sampler_of(vine_branches=18, rollout_length=1) as sampler:
        every = grow(sampler)
    assert every.surrogate is all_actions_surrogate
    for actions in every.rollout_set.actions:
        assert len(np.unique(actions.numpy(), axis=0)) == 18
    with sampler_of(vine_branches=4, rollout_length=1, vine_states=30) as sampler:
        drawn = grow(sampler)
    assert drawn.surrogate is self_normalised_surrogate
    for found in (every, drawn):
        assert found.rollout_set.log_q.unique().tolist() == pytest.approx([-math.log(18)])
    counts = torch.stack([drawn.rollout_set.actions[..., 0].flatten() == side for side in range(3)]).sum(1)
    assert (counts - 40).abs().max() < 4 * math.sqrt(120 * 2 / 9), "of 120 draws a third to every side"
    with sampler_of(vine_branches=4, rollout_length=1, actions="minimal") as sampler:
        assert sampler._branching.first_actions is game_vine_sampler.first_actions_for(
            sampler.envs[0].single_action_space, 4
        )


@pytest.mark.parametrize("branches", [4, 18])
def test_first_actions_can_be_drawn_from_the_policy(branches: int) -> None:
    with sampler_of(first_actions="policy", vine_branches=branches, rollout_length=1, vine_states=30) as sampler:
        policy, theta = policy_and_theta()
        pi_old = Actor(policy, 4 * theta, NOTHING_SEEN)
        vine = sampler.sample(pi_old, value)
    assert vine.surrogate is self_normalised_surrogate, "also where there are as many as actions"
    there, actions = pi_old.answer(vine.rollout_set.obs), vine.rollout_set.actions
    for kth in range(branches):
        torch.testing.assert_close(vine.rollout_set.log_q[:, kth], there.log_prob(actions[:, kth]))
    left = there.parameters[0][:, :3].softmax(1)[:, 0]  # of every state, how likely the stick is pushed to the left
    apart = (actions[..., 0] == 0).float().mean(1) - left
    assert apart.mean().abs() < 4 * ((left * (1 - left)).mean() / (30 * branches)).sqrt()
    assert (left - 1 / 3).abs().max() > 0.1, "the policy is not uniform"


def test_branches_with_the_same_first_action_coincide_and_so_do_not_those_with_luck_of_their_own() -> None:
    with sampler_of(sticky_actions=0.5, rollout_length=6, vine_states=9) as sampler:
        sampler._branching = replace(sampler._branching, first_actions=twice_the_same)
        Q = grow(sampler, limit=30, value=value).rollout_set.q_values
    assert torch.equal(Q[:, 0], Q[:, 1])
    assert (Q[:, 0] != Q[:, 2]).sum() >= 3


def test_every_step_of_every_game_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where the games are played: a step of a game is one order to play four frames."""
    played: list[int] = []
    order = workers.Workers.order

    def noted(self: Any, what: bytes, rows: Any = None) -> None:
        order(self, what, rows)
        if what == workers.STEP:
            played.append(int(self.arrays["chosen"].sum()))

    monkeypatch.setattr(workers.Workers, "order", noted)
    for settings in ({"threads": 1}, {"threads": 2, "vine_states": 7}):
        with sampler_of(**settings) as sampler:
            put_into(sampler, before_a_loss(), 6)
            played.clear()
            vine = sampler.sample(actor())
        assert vine.num_steps == sum(played) == 30 + vine.lengths.sum() < sampler._config.steps_per_iteration
        assert vine.facts["branch_steps"] == vine.lengths.sum()


def test_there_may_be_fewer_states_than_threads() -> None:
    with sampler_of(threads=3, vine_states=1) as sampler:
        assert grow(sampler).rollout_set.q_values.isfinite().all()


# ---- restored exactly


def test_branches_of_all_games_are_the_same_in_a_new_process(tmp_path: Path) -> None:
    """Three branches of one state, 160 frames each, common random numbers; sticky actions off and on.

    Two of them have the same first action, and find the same.
    """
    here = {}
    for game in envs.GAMES:
        with closing(make_atari(game, vine_games.BRANCHES, seed=1, threads=1)) as env:
            env.reset()
            for action in np.random.default_rng(0).integers([3, 3, 2], size=(60, vine_games.BRANCHES, 3)):
                env.step(action)
            start = env.save_state([0])
            for sticky in (0, 25):
                np.savez(tmp_path / f"{game}-{sticky}.start.npz", **start)
                here[game, sticky] = found = vine_games.follow(env, start, sticky / 100)
                for name, array in found.items():
                    np.testing.assert_array_equal(array[0], array[1], err_msg=f"{game}: {name}, the same first action")
        drawn = [here[game, sticky]["end.generators"] for sticky in (0, 25)]
        assert (drawn[0] != drawn[1]).any(), f"{game}: no action could stick"
    assert sum((found["last_obs"][0] != found["last_obs"][2]).any() for found in here.values()) > 7
    subprocess.run([sys.executable, vine_games.__file__, str(tmp_path)], check=True)
    for (game, sticky), found in here.items():
        there = dict(np.load(tmp_path / f"{game}-{sticky}.found.npz"))
        assert there.keys() == found.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(there[name], array, err_msg=f"{game}, {sticky} % sticky: {name}")


def test_a_run_goes_on_to_the_bit_whatever_the_branches_hold() -> None:
    config = tiny("pong", threads=2, sticky_actions=0.25)

    def row_of(trainer: Trainer) -> str:
        return repr({name: value for name, value in trainer.iterate().items() if not name.startswith("seconds")})

    with closing(Trainer(config)) as whole, closing(Trainer(config)) as other:
        row_of(whole)
        row_of(other)
        tensors, facts = whole.state()
        assert not any("branch" in name for name in tensors)
        row_of(other)
        other.load_state(tensors, facts)
        assert [row_of(whole) for _ in range(2)] == [row_of(other) for _ in range(2)]
        assert torch.equal(whole.theta, other.theta)


# ---- what it converges to: a game cut short, all of it
#
# From one step before a ball is lost the game goes on for two steps, then the clock cuts it and the next one begins,
# always in the same way. Trunks have three steps, branches two. Nothing but the player is random, so that every state
# and what every action leads to can be listed.


@cache
def listed() -> dict[str, Any]:
    """What each of the 18 actions leads to in the states of the trunk, and from there once more."""
    joystick = np.array(np.meshgrid(range(3), range(3), range(2), indexing="ij")).reshape(3, -1).T
    with closing(make_atari("breakout", 1, seed=0, threads=1)) as env:
        env.restore_state(before_a_loss())
        env.step(np.array([[0, 1, 1]]))
        start = env.save_state()
    with closing(make_atari("breakout", 18, seed=0, threads=1, no_op_max=1)) as env:
        env.max_episode_steps = int(start["elapsed_steps"][0]) + 2
        begun, _ = env.reset()

        def after(state: State) -> dict[str, Any]:
            obs = env.restore_state(rows_of(state, np.zeros(18, dtype=np.int64)))[:1]
            shown, scores, terminated, truncated, infos = env.step(joystick)
            shown = np.where((terminated | truncated)[:, None, None, None], infos.get("final_obs", shown), shown)
            facts = {"reward": np.sign(scores), "over": terminated | infos["life_lost"], "cut": truncated}
            return facts | {
                "obs": torch.from_numpy(obs),
                "next_obs": torch.from_numpy(shown),
                "saved": env.save_state(),
            }

        env.reset()
        new_game = rows_of(env.save_state(), np.array([0]))
        found = {}
        for name, state in (("start", start), ("new game", new_game)):
            node = found[name] = after(state) | {"here": state}
            node["children"] = [after(rows_of(node["saved"], np.array([a]))) for a in range(18)]
        assert np.array_equal(begun[:1], found["new game"]["obs"].numpy())
    return found


def probabilities(policy: Policy, theta: Tensor, obs: Tensor) -> Tensor:
    """Of all actions in one state, [18]."""
    factors = policy(theta, obs / 255).factors  # type: ignore[attr-defined]
    left, up, fire = (factor.log_probs.exp()[0].double() for factor in factors)
    return torch.einsum("i,j,k->ijk", left, up, fire).flatten()


def exact_nodes(mistake: str = "") -> list[tuple[float, Tensor, Tensor]]:
    """Every state of the trunk: how often it is there, its observation, and Q_2 of its actions, [18]."""
    old, found = actor(), listed()

    def worth(node: dict[str, Any], steps: int) -> Tensor:
        rows = []
        for a in range(18):
            over, cut = bool(node["over"][a]), bool(node["cut"][a])
            rest = value(node["next_obs"][a][None] / 255).double()[0]
            if mistake == "the clock ends the game":
                over = over or cut
            if mistake == "lost balls do not count":
                over = False
            if over:
                rest = rest * 0
            elif not cut and steps > 1 and mistake != "one step":
                child = node["children"][a]
                rest = (probabilities(old.policy, old.theta, child["obs"]) * worth(child, steps - 1)).sum()
            rows.append(node["reward"][a] + GAMMA * rest)
        return torch.stack(rows)

    start, new_game = found["start"], found["new game"]
    first = probabilities(old.policy, old.theta, start["obs"])
    second = [(p.item() / 3, child["obs"], worth(child, 2)) for p, child in zip(first, start["children"], strict=True)]
    return [(1 / 3, start["obs"], worth(start, 2)), *second, (1 / 3, new_game["obs"], worth(new_game, 2))]


def value_and_slope(num_branches: int, mistake: str = "") -> np.ndarray:
    """What the estimate must be on average: of equation 16, or of 17 with two branches; and its slope."""
    policy, theta = vine_games.policy_and_theta(2)
    at = theta.double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for weight, obs, Q in exact_nodes(mistake):
        pi = probabilities(policy, at, obs.double())
        if num_branches == 2:  # every pair of draws
            Q, pi = (pi[:, None] * Q[:, None] + pi * Q) / (pi[:, None] + pi), torch.full((18, 18), 1 / 18**2).double()
        total = total + weight * (pi * Q).sum()
    (gradient,) = torch.autograd.grad(total, at)
    return np.array([total.item(), (gradient @ direction()).item()])


def direction() -> Tensor:
    _, theta = vine_games.policy_and_theta(2)
    return torch.randn(theta.shape, generator=seeded(7)).double()


@cache
def estimates(num_branches: int, repeats: int = 20) -> np.ndarray:
    """[repeats, 2]: independent estimates at another theta than the one that has played."""
    policy, theta = vine_games.policy_and_theta(2)
    num_envs = 2 if num_branches == 18 else 6
    settings = {"num_envs": num_envs, "vine_states": 3 * num_envs, "vine_branches": num_branches}
    settings |= {"rollout_length": 2, "no_op_max": 1}
    rows, start = [], listed()["start"]["here"]
    with sampler_of(rows=3, life_loss_ends=True, **settings) as sampler:
        for _ in range(repeats):
            put_into(sampler, start, 2)
            vine: Vine = sampler.sample(actor(), value)
            batch = vine.rollout_set
            objective = vine.surrogate(policy(theta, batch.obs), batch).mean().item()
            slope = surrogate_gradient(policy, theta, batch, vine.surrogate).double() @ direction()
            rows.append((objective, slope.item()))
    return np.array(rows)


def z_scores(num_branches: int, exact: np.ndarray) -> np.ndarray:
    rows = estimates(num_branches)
    return np.asarray((rows.mean(0) - exact) / (rows.std(0, ddof=1) / math.sqrt(len(rows))))


@pytest.mark.usefixtures("_many_branches_side_by_side")
@pytest.mark.parametrize("num_branches", [18, 2], ids=["equation 16", "equation 17"])
def test_it_converges_to_the_sum_over_all_states_and_actions(num_branches: int) -> None:
    assert listed()["start"]["over"].any(), "no ball was lost: the test saw nothing"
    assert listed()["start"]["children"][0]["cut"].all(), "the clock cut nothing"
    assert np.abs(z_scores(num_branches, value_and_slope(num_branches))).max() < 3


@pytest.mark.usefixtures("_many_branches_side_by_side")
@pytest.mark.parametrize("mistake", ["lost balls do not count", "the clock ends the game", "one step"])
def test_another_target_would_be_told_apart(mistake: str) -> None:
    assert np.abs(z_scores(18, value_and_slope(18, mistake))).max() > 4
