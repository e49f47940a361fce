"""Lesson 06: exact moments against enumeration and simulation, what the text says of the pictures, the run it shows."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from teaching_contract import NARROW, line_of
from torch import Tensor

from trpo_lessons import envs, mdp
from trpo_lessons.advantages import discounted_returns, gae
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.tabular import TabularVectorEnv
from trpo_lessons.policies import CategoricalHead, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.single_path import Actor, by_environment, sample_single_path
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.teaching import own_functions, pictures
from trpo_lessons.teaching.checks.hunts import HEALTHY
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.lesson_06 import check as checks
from trpo_lessons.teaching.lesson_06 import column_hunt, own_swimmer
from trpo_lessons.teaching.lesson_06 import explorers as lesson
from trpo_lessons.teaching.lesson_06.advantages import Steps
from trpo_lessons.teaching.lesson_06.advantages import steps as random_steps
from trpo_lessons.teaching.lesson_06.less_baseline import tries as random_tries
from trpo_lessons.teaching.solutions import lesson_04, lesson_05
from trpo_lessons.teaching.solutions import lesson_06 as solutions
from trpo_lessons.training import preset
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.trpo import TrustRegion, trpo_update
from trpo_lessons.value_function import ValueFunction, values_along

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_single_path.ipynb"
ACT, BEGINNER, V, MEAN_V = lesson.beginner()


def test_every_check_knows_six_mistakes_or_more() -> None:
    all_checks = [checks.returns, checks.less_baseline, checks.advantages, checks.one_iteration]
    assert min(len(check.mistakes) for check in all_checks) >= 6
    assert sum(check.minutes for check in [*all_checks, checks.miscounted]) == 48, "the lesson says so"


# ---- the balancing act -----------------------------------------------------------------------------------------------


def test_the_balancing_act_is_what_the_lesson_says() -> None:
    assert len(lesson.LEANS) == 9
    for s, lean in enumerate(lesson.LEANS.tolist()):
        for action, push in ((lesson.LEFT, -1), (lesson.RIGHT, 1)):
            assert ACT.P[s, action].sum() == pytest.approx(1)
            target = lean + push
            state = s + push if abs(target) <= lesson.MOST_LEAN else lesson.FALLEN
            outward = abs(target) > abs(lean)
            assert float(ACT.P[s, action, state]) == pytest.approx(
                0.85 + (0.15 if lean and outward else 0.075 if outward else 0)
            )
    assert (ACT.r[: lesson.FALLEN] == 1).all()
    assert (ACT.r[lesson.FALLEN] == 0).all()
    assert float(BEGINNER[lesson.UPRIGHT + 2, lesson.LEFT]) == pytest.approx(0.6)
    assert float(BEGINNER[lesson.UPRIGHT - 2, lesson.RIGHT]) == pytest.approx(0.6)
    env = TabularVectorEnv(ACT, 1)
    assert env.mdp.num_states == lesson.FALLEN + 1


def test_a_skilled_policy_falls_about_once_in_a_thousand_steps() -> None:
    endless = mdp.TabularMDP(ACT.P, ACT.r, ACT.rho0, 1 - 1e-9)
    assert float(mdp.evaluate_policy(endless, lesson.pushes_back(0.95)).eta) == pytest.approx(1059, abs=1)


# ---- exact moments ---------------------------------------------------------------------------------------------------


def enumerated_moments(lam: float, values: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square [S, A] of the first `steps` terms of the estimate, over all that can happen."""
    P, decay = ACT.P.numpy(), ACT.gamma * lam
    mean, square = np.zeros((2, 10, 2))

    def walk(s: int, a: int, p: float, total: float, weight: float, left: int) -> list[tuple[float, float]]:
        if left == 0 or s == lesson.FALLEN:
            return [(p, total)]
        found = []
        for s2 in np.flatnonzero(P[s, a]).tolist():
            residual = float(ACT.r[s, a]) + ACT.gamma * values[s2] - values[s]
            gained = total + weight * residual
            for a2 in (0, 1):
                chance = p * P[s, a, s2] * float(BEGINNER[s2, a2])
                found += walk(s2, a2, chance, gained, weight * decay, left - 1)
        return found

    for s, a in itertools.product(range(9), (0, 1)):
        outcomes = np.array(walk(s, a, 1.0, 0.0, 1.0, steps))
        assert outcomes[:, 0].sum() == pytest.approx(1)
        mean[s, a], square[s, a] = outcomes[:, 0] @ outcomes[:, 1], outcomes[:, 0] @ outcomes[:, 1] ** 2
    return mean, square


def test_exact_moments_are_sums_over_all_that_can_happen() -> None:
    values = np.append(np.linspace(3, 11, 9), 0.0)
    for lam in (0.0, 0.05):  # the terms that are left out have weights below 1e-7
        mean, square = lesson.estimate_moments(ACT, BEGINNER, values, lam)
        expected = enumerated_moments(lam, values, 1 if lam == 0 else 6)
        np.testing.assert_allclose(mean[:9], expected[0][:9], atol=1e-5)
        np.testing.assert_allclose(square[:9], expected[1][:9], atol=1e-3)


def test_the_means_at_both_ends_of_lambda() -> None:
    A = mdp.evaluate_policy(ACT, BEGINNER).A.numpy()
    for lam in (0.0, 0.7, 1.0):
        assert np.abs(lesson.estimate_moments(ACT, BEGINNER, V, lam)[0] - A)[:9].max() < 1e-10, "an exact V: no bias"
    guess = np.array(lesson.value_guess(0.3))
    whole = lesson.estimate_moments(ACT, BEGINNER, guess, 1.0)[0]
    assert np.abs(whole - (A + V[:, None] - guess[:, None]))[:9].max() < 1e-10, "the wrong baseline, and no more"


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.9, 1.0])
def test_the_bias_is_the_formula_of_section_4(lam: float) -> None:
    error = np.array(lesson.value_guess(0.3)) - V
    P, pi = ACT.P.numpy(), BEGINNER.numpy()
    chain = np.einsum("sa,sat->st", pi, P)
    bias, ahead = -np.repeat(error[:, None], 2, 1), np.einsum("sat,t->sa", P, error)
    for n in range(1, 3000):
        bias += (1 - lam) * lam ** (n - 1) * ACT.gamma**n * ahead
        ahead = np.einsum("sat,t->sa", P, np.linalg.matrix_power(chain, n) @ error) if n < 400 else 0 * ahead
    found = lesson.estimate_moments(ACT, BEGINNER, V + error, lam)[0] - mdp.evaluate_policy(ACT, BEGINNER).A.numpy()
    np.testing.assert_allclose(found[:9], bias[:9], atol=1e-3)


def test_the_gradient_is_that_of_the_surrogate() -> None:
    """The sum over states and actions, by automatic differentiation of L over logits."""
    logits = BEGINNER.log().clone().requires_grad_()
    d, A = torch.from_numpy(lesson.visits(ACT, BEGINNER)), mdp.evaluate_policy(ACT, BEGINNER).A
    (d[:, None] * logits.softmax(-1) * A).sum().backward()
    found = lesson.logit_gradient(BEGINNER.numpy(), d[:, None].numpy(), A.numpy())
    assert logits.grad is not None
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-12)
    assert d.sum() == pytest.approx(1)


def test_the_noise_is_that_of_sampled_gradients() -> None:
    """Independent tries: score times return less baseline, many of them, against the linear systems."""
    rng = np.random.default_rng(0)
    states, actions = mdp.simulate(
        mdp.TabularMDP(ACT.P, ACT.r, torch.from_numpy(lesson.visits(ACT, BEGINNER)), ACT.gamma),
        BEGINNER,
        20_000,
        400,
        rng,
    )
    rewards = (states != lesson.FALLEN).double()
    returns = (rewards * ACT.gamma ** torch.arange(400)).sum(1)
    first, action = states[:, 0], actions[:, 0]
    score = torch.zeros(20_000, 10, 2, dtype=torch.float64)
    score[torch.arange(20_000), first] = -BEGINNER[first]
    score[torch.arange(20_000), first, action] += 1
    length = float(
        np.linalg.norm(
            lesson.logit_gradient(
                BEGINNER.numpy(),
                lesson.visits(ACT, BEGINNER)[:, None],
                mdp.evaluate_policy(ACT, BEGINNER).A.numpy(),
            )
        )
    )
    for baseline in (np.zeros(10), V, np.full(10, MEAN_V)):
        baseline = np.where(np.arange(10) == lesson.FALLEN, 0, baseline)
        exact = lesson.gradient_error(ACT, BEGINNER, baseline, 1.0)
        samples = score * (returns - torch.from_numpy(baseline)[first])[:, None, None]
        assert math.sqrt(float(samples.var(0).sum())) / length == pytest.approx(exact.noise, rel=0.03)
        assert exact.bias < 1e-9


# ---- what the lesson says about the explorers ------------------------------------------------------------------------


def test_what_the_lesson_says_about_baselines_is_so() -> None:
    bare, mean, value, twice = (
        lesson.baseline_error(kind, size).noise
        for kind, size in (
            (lesson.CONSTANT, 0.0),
            (lesson.CONSTANT, 1.0),
            (lesson.OF_STATE, 1.0),
            (lesson.OF_STATE, 2.0),
        )
    )
    assert (bare / mean) ** 2 == pytest.approx(3, abs=0.1)
    assert (bare / value) ** 2 == pytest.approx(3.3, abs=0.05)
    assert twice == pytest.approx(bare, rel=0.1), "as bad as nothing at all"
    larger = lesson.gradient_error(ACT, BEGINNER, np.where(np.arange(10) == lesson.FALLEN, 0, -100.0), 1.0).noise
    assert (larger / bare) ** 2 == pytest.approx(38, abs=0.5)
    assert all(lesson.baseline_error(kind, 0.7).bias < 1e-9 for kind in (lesson.CONSTANT, lesson.OF_STATE))


def test_the_best_baseline_of_a_state_is_the_weighted_mean() -> None:
    """E[|score|^2 Q] / E[|score|^2] in every state: near V, and no other b of the state has less noise."""
    p, Q = BEGINNER.numpy(), mdp.evaluate_policy(ACT, BEGINNER).Q.numpy()
    weights = p * (1 - 2 * p + (p**2).sum(1, keepdims=True))
    best = (weights * Q).sum(1) / weights.sum(1)
    least = lesson.gradient_error(ACT, BEGINNER, best, 1.0).noise
    value = lesson.gradient_error(ACT, BEGINNER, V, 1.0).noise
    assert least < value < 1.01 * least
    for s in range(9):
        for change in (-0.3, 0.3):
            other = best.copy()
            other[s] += change
            assert lesson.gradient_error(ACT, BEGINNER, other, 1.0).noise > least


def test_what_the_lesson_says_about_lambda_is_so() -> None:
    slide = lesson.compute_slide(0.9, 0.0, 1000)
    assert slide.best == 0.9
    assert 100 * slide.here.total(1000) == pytest.approx(38, abs=0.5)
    assert 100 * slide.errors[-1].total(1000) == pytest.approx(55, abs=0.5)
    assert 100 * slide.errors[0].total(1000) == pytest.approx(94, abs=0.5)
    assert lesson.compute_slide(0.9, 0.0, 100_000).best == 1.0
    exact = lesson.compute_slide(0.0, 1.0, 1000)
    assert all(lesson.compute_slide(0.0, 1.0, n).best == 0.0 for n in (100, 1000, 10_000, 100_000))
    assert max(error.bias for error in exact.errors) < 1e-9
    assert (exact.errors[-1].noise / exact.errors[0].noise) ** 2 == pytest.approx(15, abs=0.5)
    half = lesson.compute_slide(0.5, 0.0, 1000)
    share = half.estimate / np.where(half.exact == 0, 1, half.exact)
    assert share[lesson.UPRIGHT + 1] < 0.2 < 1.1 < share[lesson.UPRIGHT + 4], "the middle loses, the end is too large"


@pytest.mark.parametrize("know", [0.0, 0.5, 1.0])
def test_error_bars_are_numbers_even_where_an_estimate_never_varies(know: float) -> None:
    for lam in lesson.LAMBDAS:
        slide = lesson.compute_slide(lam, know, 100)
        assert np.isfinite(slide.spread).all()
        assert ("bias at zero" in lesson.alt_of_slide(slide)) == (know == 1)


@pytest.mark.parametrize("lam", lesson.LAMBDAS[:-1])
def test_the_bias_is_proportional_to_the_error_of_v(lam: float) -> None:
    whole, half = lesson.lambda_error(0.0, lam), lesson.lambda_error(0.5, lam)
    assert half.bias == pytest.approx(whole.bias / 2, rel=1e-9)


def test_the_gradients_error_is_a_share_and_samples_reduce_noise_only() -> None:
    error = lesson.GradientError(0.3, 4.0)
    assert error.total(100) == pytest.approx(0.5)
    assert error.total(10**12) == pytest.approx(0.3, rel=1e-4)


# ---- what the lesson says about ends and statistics ------------------------------------------------------------------


def test_a_limit_taken_for_an_end_ruins_good_policies_only() -> None:
    def seems_worth(skill: float) -> float:
        """The share of V(upright) that is left, with a limit of 50 steps taken for an end."""
        pi = lesson.pushes_back(skill)
        value = float(mdp.evaluate_policy(ACT, pi).V[lesson.UPRIGHT])
        chain = torch.einsum("sa,sat->st", pi, ACT.P)
        alive, total = ACT.rho0.clone(), 0.0
        for t in range(50):
            total += ACT.gamma**t * float(alive[: lesson.FALLEN].sum())
            alive = alive @ chain
        return total / value

    assert seems_worth(0.6) > 0.9
    assert seems_worth(0.95) < 0.7


def test_moved_statistics_move_the_policy_as_the_table_says() -> None:
    policy, theta, batch = hopper_batch()
    g = surrogate_gradient(policy, theta, batch)
    kls = []
    for batches_seen in (1, 12, 50):
        n = 4096 * batches_seen
        before = RunningMoments(n, torch.zeros(11).double(), n * torch.ones(11).double())
        assert torch.allclose(before.normalise(batch.obs).double(), batch.obs, atol=1e-5), "already normalised"
        moved = before.including(batch.obs).normalise(batch.obs).double()
        kls.append(float(policy(theta, batch.obs).kl(policy(theta, moved)).mean()) / 0.01)
    assert kls[0] == pytest.approx(4.6, abs=0.1)
    assert kls[2] < 0.01
    assert kls[1] / kls[2] == pytest.approx((50 / 12) ** 2, rel=0.2), "it dies out as 1 / n^2"
    before = RunningMoments(4096, torch.zeros(11).double(), 4096 * torch.ones(11).double())
    moved = before.including(batch.obs).normalise(batch.obs).double()
    renewed = Batch(moved, batch.actions, batch.advantages, policy(theta, moved).log_prob(batch.actions))
    other = surrogate_gradient(policy, theta, renewed)
    assert abs(float(torch.dot(g, other) / (g.norm() * other.norm()))) < 0.2, "useless"


# ---- exercises -------------------------------------------------------------------------------------------------------


def test_solutions_are_the_modules_functions() -> None:
    for seed in range(5):
        rewards, values, next_values, over, cut, gamma, lam = random_steps(np.random.default_rng(seed))
        mine = solutions.advantages(rewards, values, next_values, over, cut, gamma, lam)
        assert torch.allclose(mine, gae(rewards, values, next_values, over, cut, gamma, lam), atol=1e-12)
        columns = [column[:, 0] for column in (rewards, next_values, over, cut)]
        twin = discounted_returns(rewards, next_values, over, cut, gamma)[:, 0]
        assert torch.allclose(solutions.returns(*columns, gamma), twin, atol=1e-12)


def test_the_others_as_a_baseline_leave_the_mean_alone_and_the_own_one_does_not() -> None:
    """Three tries from a state with two actions: the mean of score times what is left, over all that can happen."""
    p, worth = 0.3, torch.tensor([1.0, 5.0]).double()
    state = torch.zeros(3, dtype=torch.int64)
    truth = p * (1 - p) * (worth[1] - worth[0])

    def mean_gradient(function) -> float:
        total = 0.0
        for tried in itertools.product((0, 1), repeat=3):
            chance = math.prod(p if a else 1 - p for a in tried)
            score = torch.tensor([a - p for a in tried]).double()
            total += chance * float((score * function(worth[list(tried)], state)).mean())
        return total

    assert mean_gradient(solutions.less_baseline) == pytest.approx(float(truth))
    own = next(m for m in checks.less_baseline.mistakes if m.name == "includes_itself")
    assert mean_gradient(own.function) == pytest.approx(float(truth) * 2 / 3), "the message says (n - 1) / n"


def loop_forms() -> dict[str, object]:
    def returns_by_lists(rewards, next_values, terminated, truncated, gamma):
        found = []
        for t in range(len(rewards)):
            total = 0.0
            for k in range(t, len(rewards)):
                total += gamma ** (k - t) * rewards[k]
                if terminated[k]:
                    break
                if truncated[k] or k == len(rewards) - 1:
                    total += gamma ** (k - t + 1) * next_values[k]
                    break
            found.append(total)
        return torch.stack(found)

    def baseline_by_loops(worth, states):
        found = worth.clone()
        for n in range(len(worth)):
            others = [worth[m] for m in range(len(worth)) if m != n and states[m] == states[n]]
            found[n] -= sum(others) / len(others)
        return found

    def advantages_by_deltas(rewards, values, next_values, terminated, truncated, gamma, lam):
        goes_on = (~terminated & ~truncated).double()
        found = rewards + gamma * next_values * (1 - terminated.double()) - values
        for t in range(len(rewards) - 2, -1, -1):
            found[t] += gamma * lam * goes_on[t] * found[t + 1]
        return found

    return {"returns": returns_by_lists, "less_baseline": baseline_by_loops, "advantages": advantages_by_deltas}


@pytest.mark.parametrize("name", ["returns", "less_baseline", "advantages"])
def test_right_answers_in_other_words_pass(name: str) -> None:
    assert line_of(getattr(checks, name), loop_forms()[name]) == "passed"


def test_another_try_with_the_same_return_is_another_try() -> None:
    def by_return(worth, states):
        alike = [worth[(states == s) & (worth != w)] for w, s in zip(worth, states, strict=True)]
        return worth - torch.stack([others.mean() for others in alike])

    def by_torch_std(worth, states):
        alike = [worth[states == s] for s in states]
        return torch.stack([(w - each.mean()) / each.std() for w, each in zip(worth, alike, strict=True)])

    def less_the_best_other(worth, states):
        places = torch.arange(len(worth))
        return worth - torch.stack([worth[(states == s) & (places != n)].max() for n, s in enumerate(states)])

    assert "compare positions, not returns" in line_of(checks.less_baseline, by_return)
    assert "divide by the spread within each state" in line_of(checks.less_baseline, by_torch_std)
    assert "should each lose 1 / (n - 1)" in line_of(checks.less_baseline, less_the_best_other)


def test_flags_of_another_row_and_of_another_environment_are_named() -> None:
    def ends_all(rewards, values, next_values, terminated, truncated, gamma, lam):
        found = rewards + gamma * next_values * ~terminated - values
        for t in range(len(rewards) - 2, -1, -1):
            if not (terminated[t] | truncated[t]).any():
                found[t] += gamma * lam * found[t + 1]
        return found

    def next_rows_flags(rewards, next_values, terminated, truncated, gamma):
        found, future, last = torch.zeros_like(rewards), next_values[-1], len(rewards) - 1
        for t in reversed(range(len(rewards))):
            if t < last and truncated[t + 1]:
                future = next_values[t]
            if t < last and terminated[t + 1]:
                future = 0 * future
            future = rewards[t] + gamma * future
            found[t] = future
        return found

    assert "An end in one environment ends the sums of all" in line_of(checks.advantages, ends_all)
    assert "the flags of the next row" in line_of(checks.returns, next_rows_flags)


def slips_in_returns() -> dict[str, object]:
    """Right on the record as it is drawn, and wrong elsewhere; by a part of what is said about it."""

    def the_last_row_first(rewards, next_values, terminated, truncated, gamma):
        found = [rewards[-1] + gamma * next_values[-1]]
        for t in reversed(range(len(rewards) - 1)):
            future = next_values[t] if truncated[t] else found[-1]
            found.append(rewards[t] + gamma * (0 if terminated[t] else future))
        return torch.stack(found[::-1])

    def cut_twice(rewards, next_values, terminated, truncated, gamma):
        found, future = [], 0 * next_values[-1]
        for t in reversed(range(len(rewards))):
            future = 0 * future if terminated[t] or truncated[t] else future
            future = future + next_values[t] * (truncated[t] & ~terminated[t])
            future = future + next_values[t] * (t == len(rewards) - 1 and not terminated[t])
            future = rewards[t] + gamma * future
            found.append(future)
        return torch.stack(found[::-1])

    def by_powers(rewards, next_values, terminated, truncated, gamma):
        powers = gamma ** torch.arange(len(rewards), dtype=rewards.dtype)
        cut = truncated.clone()
        cut[-1] = True
        paid = torch.where(cut & ~terminated, rewards + gamma * next_values, rewards)
        sums = (powers * paid).flip(0).cumsum(0).flip(0)
        after = torch.cat([sums[1:], 0 * sums[:1]])
        ends = [t for t in range(len(rewards)) if terminated[t] or cut[t]]
        last = torch.tensor([next(e for e in ends if e >= t) for t in range(len(rewards))])
        return (sums - after[last]) / powers

    def divided_by_gamma(rewards, next_values, terminated, truncated, gamma):
        return solutions.returns(rewards * gamma, next_values * gamma, terminated, truncated, gamma) / gamma

    def of_the_rewards_type(rewards, *others):
        return solutions.returns(rewards, *others).to(rewards.dtype)

    def adds_to_the_rewards(rewards, next_values, terminated, truncated, gamma):
        found = rewards.clone()
        for t in reversed(range(len(rewards))):
            cut = truncated[t] or t == len(rewards) - 1
            if not terminated[t]:
                found[t] += gamma * (next_values[t] if cut else found[t + 1])
        return found

    def three_rows_or_more(rewards, next_values, terminated, truncated, gamma):
        if len(rewards) == 1:
            return rewards + gamma * next_values
        return solutions.returns(rewards, next_values, terminated, truncated, gamma)

    def appends_one_tensor(rewards, next_values, terminated, truncated, gamma):
        found, future = [], next_values[-1].clone()
        for t in reversed(range(len(rewards))):
            if truncated[t]:
                future.copy_(next_values[t])
            if terminated[t]:
                future.zero_()
            future *= gamma
            future += rewards[t]
            found.append(future)
        return torch.stack(found[::-1])

    return {
        "a value though its episode ended there": the_last_row_first,
        "is cut twice": cut_twice,
        "record of a single row": three_rows_or_more,
        "gamma = 0": divided_by_gamma,
        "divided by gamma^t in the end": by_powers,
        "such as cart-pole's 1, 1, 1": of_the_rewards_type,
        "zeros_like(rewards) has the right shape": adds_to_the_rewards,
        "holds that one tensor T times": appends_one_tensor,
    }


@pytest.mark.parametrize("words", slips_in_returns())
def test_slips_in_returns_are_named(words: str) -> None:
    assert words in line_of(checks.returns, slips_in_returns()[words])


def slips_in_the_baseline() -> dict[str, object]:
    def counts_states(worth, states):
        found = torch.zeros_like(worth)
        for s in range(len(states.unique())):
            here = worth[states == s]
            found[states == s] = here - (here.sum() - here) / (len(here) - 1)
        return found

    def of_the_first_hundred(worth, states):
        found = torch.zeros_like(worth)
        for s in range(100):
            here = worth[states == s]
            found[states == s] = here - (here.sum() - here) / (len(here) - 1)
        return found

    def all_over_the_others(worth, states):
        alike = (states[:, None] == states).double()
        return worth - alike @ worth / (alike.sum(1) - 1)

    return {
        "loop over range(number of states)": counts_states,
        "a fixed number of states": of_the_first_hundred,
        "the try itself is still in the sum": all_over_the_others,
        "whatever their state; tempting, because it leaves": lambda w, _s: w - (w.sum() - w) / (len(w) - 1),
    }


@pytest.mark.parametrize("words", slips_in_the_baseline())
def test_slips_in_the_baseline_are_named(words: str) -> None:
    assert words in line_of(checks.less_baseline, slips_in_the_baseline()[words])


def test_states_of_any_integer_type_will_do() -> None:
    worth, states = random_tries(np.random.default_rng(0))
    right = solutions.less_baseline(worth, states)
    assert torch.equal(solutions.less_baseline(worth, states.int()), right)
    assert torch.equal(solutions.less_baseline(worth, 10**12 + 7 * states), right)


def slips_in_advantages() -> dict[str, object]:
    def the_last_row_ahead(rewards, values, next_values, terminated, truncated, gamma, lam):
        found = [rewards[-1] + gamma * next_values[-1] - values[-1]]
        for t in reversed(range(len(rewards) - 1)):
            residual = rewards[t] + gamma * next_values[t] * ~terminated[t] - values[t]
            found.append(residual + gamma * lam * ~(terminated[t] | truncated[t]) * found[-1])
        return torch.stack(found[::-1])

    def divided_by_gamma(rewards, values, next_values, terminated, truncated, gamma, lam):
        columns = (gamma * rewards, gamma * values, gamma * next_values)
        return solutions.advantages(*columns, terminated, truncated, gamma, lam) / gamma

    def by_powers(rewards, values, next_values, terminated, truncated, gamma, lam):
        residuals = Steps(rewards, values, next_values, terminated, truncated, gamma, lam).residuals
        powers = ((gamma * lam) ** torch.arange(len(rewards), dtype=torch.float64))[:, None]
        found = torch.zeros_like(residuals)
        for e in range(rewards.shape[1]):
            start = 0
            for t in range(len(rewards)):
                if terminated[t, e] or truncated[t, e] or t == len(rewards) - 1:
                    piece = slice(start, t + 1)
                    weighted = (powers[piece] * residuals[piece, e : e + 1]).flip(0).cumsum(0).flip(0)
                    found[piece, e : e + 1] = weighted / powers[piece]
                    start = t + 1
        return found

    def of_the_rewards_type(rewards, *others):
        return solutions.advantages(rewards, *others).to(rewards.dtype)

    def appends_one_tensor(rewards, values, next_values, terminated, truncated, gamma, lam):
        x = Steps(rewards, values, next_values, terminated, truncated, gamma, lam)
        found, later = [], torch.zeros_like(rewards[0])
        for t in reversed(range(len(rewards))):
            later *= gamma * lam * x.going_on[t]
            later += x.residuals[t]
            found.append(later)
        return torch.stack(found[::-1])

    def less_their_mean(*columns):
        found = solutions.advantages(*columns)
        return found - found.mean()

    def mixes_environments(*columns):
        found = solutions.advantages(*columns)
        return found + 0.1 * (found.mean(1, keepdim=True) - found)

    return {
        "ends in the very last row": the_last_row_ahead,
        "With gamma = 0 or lambda = 0": divided_by_gamma,
        "get lost in a long record": by_powers,
        "whole numbers for rewards": of_the_rewards_type,
        "tensor T times": appends_one_tensor,
        "You take the mean of the batch off": less_their_mean,
        "as if it were alone": lambda r, *others: mixes_environments(r, *others) if r.shape[1] > 1 else r,
    }


@pytest.mark.parametrize("words", slips_in_advantages())
def test_slips_in_advantages_are_named(words: str) -> None:
    assert words in line_of(checks.advantages, slips_in_advantages()[words])


def test_the_first_iteration_is_no_exception() -> None:
    def waits_for_statistics(theta, statistics, collect, update):
        if statistics.count == 0:
            raw_obs = collect(theta, statistics.normalise)
            statistics = statistics.including(raw_obs)
            return update(theta, statistics.normalise(raw_obs)), statistics
        return solutions.one_iteration(theta, statistics, collect, update)

    def counts_itself(theta, statistics, collect, update):
        theta, after = solutions.one_iteration(theta, statistics, collect, update)
        return theta, RunningMoments(statistics.count + 1, after.mean, after.deviations)

    assert "where nothing has been seen yet" in line_of(checks.one_iteration, waits_for_statistics)
    assert "Count, mean and deviations" in line_of(checks.one_iteration, counts_itself)


def test_an_iteration_hands_back_what_it_learned_and_collects_once() -> None:
    def keeps_theta(theta, statistics, collect, update):
        _, after = solutions.one_iteration(theta, statistics, collect, update)
        return theta, after

    def collects_for_the_statistics(theta, statistics, collect, update):
        theta, _ = solutions.one_iteration(theta, statistics, collect, update)
        return theta, statistics.including(collect(theta, statistics.normalise))

    assert "should be the one that `update` returned" in line_of(checks.one_iteration, keeps_theta)
    assert "once each" in line_of(checks.one_iteration, collects_for_the_statistics)


# ---- the runs --------------------------------------------------------------------------------------------------------


def notebook_function(name: str) -> str:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (found,) = [source for source in sources if source.startswith(f"def {name}(")]
    return found.partition("\n\n\n")[0]


def test_the_eight_lines_take_the_trainers_steps() -> None:
    source = notebook_function("iteration")
    assert len(source.splitlines()) - 1 == 8
    config = preset("cartpole", iterations=2, seed=0, threads=1)
    assert (config.rows, config.gamma, config.lam, config.delta, config.damping) == (64, 0.99, 0.95, 0.01, 0.1)
    assert (config.fisher_stride, config.value_stride, config.shrink, config.value_steps) == (4, 4, 0.8, 2)
    names = dict(globals())
    exec(source, names)
    generator = torch.Generator().manual_seed(0)
    env = envs.make("cartpole", config.num_envs)
    seeds = envs.derived_seeds(0, "training after iteration 0", config.num_envs)
    raw_obs = torch.as_tensor(envs.begin_episodes(env, seeds))
    robot = mlp_policy(4, CategoricalHead(2), config.hidden)
    theta = robot.initial_theta(generator)
    value, statistics = ValueFunction(4, config.value_hidden, generator), RunningMoments.empty(4)
    trainer = Trainer(config)
    start = trainer.theta
    assert torch.equal(start, theta)
    for _ in range(2):
        row = trainer.iterate()
        theta, statistics, raw_obs, report = names["iteration"](
            env, robot, theta, statistics, value, raw_obs, generator
        )
        assert report.mean_kl == pytest.approx(row["mean_kl"], rel=1e-3)
    assert float((theta - trainer.theta).norm() / (theta - start).norm()) < 1e-3
    assert torch.allclose(statistics.mean, trainer.statistics.mean)
    trainer.close()


# Names that the notebook's function finds in this module.
USED = (Actor, Problem, TrustRegion, gae, by_environment, sample_single_path, values_along, trpo_update)


def test_a_run_to_watch_returns_what_it_learned_and_all_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    run, rows = lesson.watch_learning(preset("cartpole", "smoke", seed=0))
    assert torch.get_num_threads() == threads
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert run.theta.shape == (run.policy.num_parameters,)
    assert all(row["return"] > 5 for row in rows), "a beginner's episodes end in each iteration"
    capsys.readouterr()


def test_an_iteration_in_which_no_episode_ends_has_no_return() -> None:
    config = preset("swimmer", "smoke", seed=0, threads=1, iterations=1)
    _, rows = lesson.watch_learning(config)
    assert math.isnan(rows[0]["return"])


def test_the_report_is_drawn_with_gaps() -> None:
    config = preset("cartpole", "smoke", seed=0)
    row = {"iteration": 1, "mean_kl": 0.005, "predicted_gain": 0.1, "surrogate_gain": 0.09, "explained_variance": 0.3}
    rows = [{**row, "return": math.nan}, {**row, "iteration": 2, "return": 20.0, "mean_kl": math.nan}]
    with pictures.style():
        figure = pictures.new_figure(8.4, 4.8)
        lesson.draw_report(figure, rows, config)
        returns, kl, gains, explained = figure.axes
        assert returns.lines[0].get_xdata().tolist() == [2]
        assert kl.lines[0].get_ydata().tolist() == pytest.approx([0.5])
        assert [line.get_label() for line in gains.lines] == ["promised", "on the batch"]
        assert explained.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.3])
        assert pictures.png(figure).startswith(b"\x89PNG")


def test_stationary_values_are_what_the_lesson_prints() -> None:
    values: Tensor = mdp.evaluate_policy(ACT, BEGINNER).V
    assert float(values[lesson.UPRIGHT]) == pytest.approx(18.57, abs=0.005)
    mean, square = lesson.estimate_moments(ACT, BEGINNER, np.zeros(10), 1.0)
    p = BEGINNER[lesson.UPRIGHT].numpy()
    assert math.sqrt(p @ square[lesson.UPRIGHT] - (p @ mean[lesson.UPRIGHT]) ** 2) == pytest.approx(10, abs=0.4)


# ---- the second hunt, and the swimmer of one's own -------------------------------------------------------------------


def test_every_bug_in_the_columns_leaves_the_trace_that_its_hint_speaks_of() -> None:
    found = {kind: column_hunt.evidence_of(kind) for kind in (HEALTHY, *column_hunt.BUGS)}
    whole = found[HEALTHY]
    assert whole.falls[1] < 1e-12
    assert whole.ratios == pytest.approx((1, 1), abs=1e-12)
    assert whole.cosine > 0.99
    assert found["limit taken for an end"].limits[0] < whole.limits[0] - 20
    assert found["value after a fall"].falls[0] == pytest.approx(
        whole.falls[0] + ACT.gamma * column_hunt.V_OF_THE_FLOOR
    )
    assert found["sum across resets"].falls[1] > 1
    assert found["lambda left out"].inside[1] > 1.5 * whole.inside[1]
    assert found["lambda left out"].limits == whole.limits
    assert found["log q of the next row"].ratios == pytest.approx((1 / 3, 3))
    assert found["log q not detached"].gradient_length < 1e-12
    assert math.isnan(found["log q not detached"].cosine)
    head, *lines = column_hunt.table(column_hunt.HUNT.lineup(3)).splitlines()[1:]
    assert max(map(len, [head, *lines])) <= NARROW, "its lines break in a narrow window"
    assert len(set(lines)) == len(lines) == 7


def test_the_healthy_columns_are_those_of_gae() -> None:
    _, x = column_hunt.record()
    ends = x.terminated, x.truncated
    right = gae(x.rewards, x.values, x.next_values, *ends, ACT.gamma, column_hunt.LAM)
    assert torch.allclose(column_hunt.advantages_of(column_hunt.WHOLE, x, ACT.gamma), right, atol=1e-12)
    ages = torch.zeros_like(x.states[0])
    for t in range(column_hunt.ROWS):
        ages += 1
        assert ((ages == column_hunt.LIMIT) == x.truncated[t]).all()
        ages[x.terminated[t] | x.truncated[t]] = 0


def test_a_swimmer_learns_by_the_solutions_as_by_the_package() -> None:
    update = own_functions.update_from(
        fisher_product=lesson_04.fisher_product,
        solve=lesson_04.solve,
        full_step=lesson_05.full_step,
        search=lesson_05.search,
    )
    config = preset("swimmer", lam=0.95, num_envs=4, steps_per_iteration=256, iterations=2, seed=0)

    def by_the_package(policy, theta, batch, **settings):
        return trpo_update(Problem(policy, batch), theta, TrustRegion(**settings))[0]

    *_, (row, run) = own_swimmer.iterations(config, solutions.advantages, update)
    *_, (twin, other) = own_swimmer.iterations(config, gae, by_the_package)
    assert run.iteration == 2
    assert row["mean_kl"] == pytest.approx(twin["mean_kl"], rel=0.02)
    assert float((run.theta - other.theta).norm() / (run.theta - own_swimmer.untrained(run).theta).norm()) < 0.05
    swim = own_swimmer.swim(run, seconds=0.4)
    assert swim.distance == swim.positions[-1, 0] - swim.positions[0, 0] != 0
    with pictures.style():
        figure = pictures.new_figure(9.0, 4.4)
        own_swimmer.draw_swims(figure, {"one": swim, "other": swim}, [0, 10], 10)
        assert [len(axes.collections) for axes in figure.axes] == [2, 2]
        assert pictures.png(figure).startswith(b"\x89PNG")


def test_few_actions_can_make_most_of_a_gain() -> None:
    policy, theta, batch = hopper_batch()
    step = 0.01 * torch.ones_like(theta)
    found = own_swimmer.report_of(policy, theta, theta + step, batch)
    assert found["accepted"] == 1
    ratios = torch.exp(policy(theta + step, batch.obs).log_prob(batch.actions) - batch.log_q)
    gains = (ratios - 1) * batch.advantages
    assert found["surrogate_gain"] == pytest.approx(float(gains.mean()), rel=1e-6)
    assert found["largest_ratio"] == pytest.approx(float(ratios.max()))
    largest = sorted(gains.tolist(), key=abs)[-own_swimmer.MOST_MOVED :]
    assert found["few_actions"] == pytest.approx(sum(largest) / float(gains.sum()), rel=1e-6)
    assert own_swimmer.report_of(policy, theta, theta, batch)["accepted"] == 0
