"""PPO's update: the clipped surrogate and Adam's steps against twins in plain loops, and told from mistakes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Case, mutant, normal, small_problem
from torch import Tensor
from trpo_twins import assert_nothing_moved, naive_gradient, naive_mean_kl, naive_surrogate

from trpo_lessons.prior_methods import ppo
from trpo_lessons.problem import Problem
from trpo_lessons.rollout_set import RolloutSet
from trpo_lessons.surrogate import sampled_surrogate, value_and_gradient

SETTINGS: dict[str, Any] = {"clip": 0.15, "epochs": 3, "minibatch_size": 8, "learning_rate": 0.02}


@pytest.fixture(params=["linear-categorical", "mlp-gaussian"])
def problem(request: pytest.FixtureRequest) -> Case:
    return small_problem(request.param, 21)  # two minibatches of 8 and one of 5


def naive_ratios(problem: Case, theta: Tensor) -> Tensor:
    return torch.exp(problem.policy(theta, problem.batch.obs).log_prob(problem.batch.actions) - problem.batch.log_q)


def naive_term(ratio: float, advantage: float, clip: float) -> float:
    """By cases, as a student would write it who has understood it."""
    if advantage >= 0:
        return min(ratio, 1 + clip) * advantage
    return max(ratio, 1 - clip) * advantage


def clipped_mean(problem: Case, theta: Tensor, rows: Tensor, clip: float) -> Tensor:
    ratios, advantages = naive_ratios(problem, theta)[rows], problem.batch.advantages[rows]
    pays = torch.where(advantages >= 0, ratios < 1 + clip, ratios > 1 - clip)
    return torch.where(pays, ratios * advantages, 0).mean()  # what does not pay is a constant, and has no gradient


def naive_update(problem: Case, clip: float, epochs: int, minibatch_size: int, learning_rate: float) -> np.ndarray:
    """Adam as Kingma and Ba (2015) print it, Algorithm 1, upwards."""
    generator = torch.Generator().manual_seed(0)
    theta, t = problem.theta.numpy().copy(), 0
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for _ in range(epochs):
        order = torch.randperm(len(problem.batch), generator=generator)
        for first in range(0, len(order), minibatch_size):
            at = torch.from_numpy(theta).requires_grad_()
            clipped_mean(problem, at, order[first : first + minibatch_size], clip).backward()
            g, t = at.grad.numpy(), t + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            theta = theta + learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return theta


# ---- the clipped surrogate


def check_terms(problem: Case, module: ModuleType = ppo) -> None:
    theta = problem.theta + 0.3 * normal(9, len(problem.theta))
    ratios = naive_ratios(problem, theta)
    found = module.clipped_surrogate(problem.policy(theta, problem.batch.obs), problem.batch, 0.15)
    pairs = zip(ratios.tolist(), problem.batch.advantages.tolist(), strict=True)
    expected = [naive_term(ratio, advantage, 0.15) for ratio, advantage in pairs]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert ((ratios - 1).abs() > 0.15).sum() > 4, "clipping must matter here"


def test_the_terms_are_those_that_pay(problem: Case) -> None:
    check_terms(problem)


@pytest.mark.parametrize(
    "mistake",
    [
        ("torch.minimum(", "torch.maximum("),
        ("torch.minimum(ratios * batch.advantages, ", "(lambda x: x)("),  # clipped whichever way it went
        ("clamp(1 - clip, 1 + clip)", "clamp(max=1 + clip)"),
        ("clamp(1 - clip, 1 + clip)", "clamp(min=1 - clip)"),
        ("clamp(1 - clip, 1 + clip)", "clamp(-clip, clip)"),
    ],
)
def test_mistakes_in_the_terms_are_caught(mistake: tuple[str, str], problem: Case) -> None:
    with pytest.raises(AssertionError):
        check_terms(problem, mutant(ppo, mistake))


def test_the_clipped_surrogate_is_never_above_the_other_and_agrees_with_it_at_the_old_policy(problem: Case) -> None:
    def clipped(pi: Any, batch: Any) -> Tensor:
        return ppo.clipped_surrogate(pi, batch, 0.15)

    for scale in (0.0, 0.01, 0.3, 1.0):
        pi = problem.policy(problem.theta + scale * normal(9, len(problem.theta)), problem.batch.obs)
        assert (clipped(pi, problem.batch) <= sampled_surrogate(pi, problem.batch) + 1e-12).all()
    ours, theirs = (
        value_and_gradient(problem.policy, problem.theta, problem.batch, surrogate)
        for surrogate in (clipped, sampled_surrogate)
    )
    assert ours[0] == pytest.approx(theirs[0])
    np.testing.assert_allclose(ours[1].numpy(), theirs[1].numpy(), rtol=1e-9, atol=1e-12)


# ---- the update


def check_update(problem: Case, module: ModuleType = ppo) -> None:
    before = problem.theta.clone()
    new, report = module.ppo_update(problem, problem.theta, **SETTINGS)
    assert torch.equal(problem.theta, before), "theta was changed in place"
    np.testing.assert_allclose(new.numpy(), naive_update(problem, **SETTINGS), rtol=1e-9, atol=1e-12)
    step = (new - before).numpy()
    assert (report.accepted, report.reason, report.step_fraction, report.backtracks) == (True, "accepted", 1.0, 0)
    assert report.surrogate_before == pytest.approx(naive_surrogate(problem, before), rel=1e-9)
    assert report.surrogate_after == pytest.approx(naive_surrogate(problem, new), rel=1e-9)
    assert report.mean_kl == pytest.approx(naive_mean_kl(problem, new), rel=1e-9)
    assert report.predicted_gain == pytest.approx(naive_gradient(problem) @ step, rel=1e-9)
    assert report.step_norm == pytest.approx(np.linalg.norm(step), rel=1e-9)
    ratios = naive_ratios(problem, new).tolist()
    assert set(report.facts) == set(ppo.PPO_FACTS)
    assert report.facts["clipped_share"] == pytest.approx(sum(not 0.85 <= r <= 1.15 for r in ratios) / len(ratios))
    assert report.facts["largest_ratio"] == pytest.approx(max(max(r, 1 / r) for r in ratios))
    assert report.facts["gradient_steps"] == 9


def test_the_update_is_adam_on_minibatches_of_the_clipped_surrogate(problem: Case) -> None:
    check_update(problem)


@pytest.mark.parametrize(
    "mistake",
    [
        ("maximize=True", "maximize=False"),
        ("lr=learning_rate", "lr=learning_rate / 10"),
        ("range(epochs)", "range(epochs - 1)"),
        ("order, minibatch_size)", "order, minibatch_size + 1)"),
        ("some, objective, problem.chunk_size", "some, problem.surrogate, problem.chunk_size"),
        ("problem.policy, at, some", "problem.policy, theta, some"),
        ("theta.detach().clone()", "theta.detach()"),
        ("torch.optim.Adam(", "torch.optim.SGD("),
        ("logs.abs().max()", "logs.max()"),
        ("return at, steps", "return at, epochs"),
    ],
)
def test_mistakes_in_the_update_are_caught(mistake: tuple[str, str]) -> None:
    problem = small_problem("mlp-gaussian", 21)
    with pytest.raises(AssertionError):
        check_update(problem, mutant(ppo, mistake))


def check_clipped_share(problem: Case, module: ModuleType = ppo) -> None:
    """Ratios of .86 are within .15 of 1, although 1 / .86 is not; all of them on one side."""
    for ratio, share in ((0.84, 1.0), (0.86, 0.0), (1.14, 0.0), (1.16, 1.0)):
        log_q = problem.batch.log_q - math.log(ratio)
        there = replace(problem, batch=replace(problem.batch, log_q=log_q))
        _, report = module.ppo_update(there, problem.theta, clip=0.15, learning_rate=1e-12)
        assert report.facts["clipped_share"] == share
        assert report.facts["largest_ratio"] == pytest.approx(max(ratio, 1 / ratio))


def test_ratios_are_clipped_at_equal_distances_from_1(problem: Case) -> None:
    check_clipped_share(problem)


@pytest.mark.parametrize(
    "mistake", [("math.log1p(-clip)", "-math.log1p(clip)"), ("logs < math.log1p(-clip)", "logs < -10")]
)
def test_mistakes_in_the_share_are_caught(mistake: tuple[str, str], problem: Case) -> None:
    with pytest.raises(AssertionError):
        check_clipped_share(problem, mutant(ppo, mistake))


def test_the_first_step_moves_every_parameter_by_the_learning_rate(problem: Case) -> None:
    """Adam's moments begin at zero: without a history the gradient's sign is all that counts."""
    new, report = ppo.ppo_update(problem, problem.theta, epochs=1, minibatch_size=100, learning_rate=0.003)
    gradient = naive_gradient(problem)
    felt = np.abs(gradient) > 1e-4  # far above Adam's epsilon
    np.testing.assert_allclose((new - problem.theta).numpy()[felt], 0.003 * np.sign(gradient)[felt], rtol=1e-3)
    assert report.facts["gradient_steps"] == 1


def test_clipping_bounds_neither_ratio_nor_kl() -> None:
    """Samples that were let go of are taken along by the others."""
    problem = small_problem("mlp-gaussian", 50)
    _, report = ppo.ppo_update(problem, problem.theta, clip=0.1, epochs=100, learning_rate=0.02)
    assert report.facts["largest_ratio"] > 2
    assert report.mean_kl > 0.05


def test_a_ratio_beyond_single_precision_is_told() -> None:
    problem = small_problem("mlp-gaussian", 21, dtype=torch.float32)
    log_q = problem.batch.log_q + 100 * torch.eye(21)[0]
    far = replace(problem, batch=replace(problem.batch, log_q=log_q))
    _, report = ppo.ppo_update(far, problem.theta, learning_rate=1e-9)
    assert report.facts["largest_ratio"] == pytest.approx(math.exp(100), rel=1e-3)


def test_an_update_is_a_function_of_its_arguments(problem: Case) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (ppo.ppo_update(problem, problem.theta, **SETTINGS) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_chunks_change_rounding_alone(problem: Case) -> None:
    whole, _ = ppo.ppo_update(problem, problem.theta, **SETTINGS)
    parts, report = ppo.ppo_update(replace(problem, chunk_size=3), problem.theta, **SETTINGS)
    np.testing.assert_allclose(parts.numpy(), whole.numpy(), rtol=1e-9, atol=1e-12)
    assert report.facts["largest_ratio"] == pytest.approx(
        max(max(r, 1 / r) for r in naive_ratios(problem, parts).tolist())
    )


# ---- refused


def test_what_is_not_finite_or_has_no_direction_never_reaches_theta(problem: Case) -> None:
    advantages = problem.batch.advantages
    cases = {
        "the surrogate or its gradient is not finite": (advantages * math.nan, {}),
        "the gradient is zero: nothing to improve": (0 * advantages, {}),
        "the surrogate or the KL is not finite after the step": (advantages, {"learning_rate": 1e308}),
    }
    for why, (given, settings) in cases.items():
        bad = replace(problem, batch=replace(problem.batch, advantages=given))
        new, report = ppo.ppo_update(bad, problem.theta, **(SETTINGS | settings))
        assert new is problem.theta
        assert (report.accepted, report.reason) == (False, why)
        assert_nothing_moved(report)


@pytest.mark.parametrize(
    "bad",
    [{"clip": 0.0}, {"clip": 1.0}, {"clip": math.nan}, {"epochs": 0}, {"minibatch_size": 0}]
    + [{"learning_rate": x} for x in (0.0, -1.0, math.inf, math.nan)],
)
def test_settings_out_of_range(bad: dict[str, Any], problem: Case) -> None:
    with pytest.raises(ValueError, match="need 0 < clip < 1, epochs and minibatch_size >= 1 and a finite learning"):
        ppo.ppo_update(problem, problem.theta, **bad)


def test_a_vine_has_no_ratio_to_clip(problem: Case) -> None:
    several = RolloutSet(*(torch.zeros(4, 2) for _ in range(4)))
    with pytest.raises(ValueError, match="a ratio is clipped for one action in every state; a vine has several"):
        ppo.ppo_update(Problem(problem.policy, several), problem.theta)
