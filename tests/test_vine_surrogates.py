"""Equations 16 and 17 against double loops, and what adding constants, drawing few actions and a wrong q do to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from helpers import KINDS, PROPERTY, all_actions, mutant, normal, seeded, small_policy, weighted_actions
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons import rollout_set
from trpo_lessons.kl import mean_kl
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, linear_policy, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.rollout_set import (
    FirstActions,
    RolloutSet,
    all_actions_surrogate,
    every_action,
    from_the_policy,
    log_prob_of_each,
    self_normalised_surrogate,
    uniformly,
)
from trpo_lessons.surrogate import Batch, States, Surrogate, surrogate_gradient, surrogate_value
from trpo_lessons.trpo import TrustRegion, trpo_update

DISCRETE = [kind for kind in KINDS if "gaussian" not in kind]
CASES = [(self_normalised_surrogate, kind) for kind in KINDS] + [(all_actions_surrogate, kind) for kind in DISCRETE]


def rollouts(
    kind: str, first_actions: FirstActions, num_states: int = 9, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Policy, Tensor, RolloutSet]:
    """A policy, the theta that followed it, and a rollout set with Q-values that mean nothing."""
    policy, obs_shape = small_policy(kind)
    theta = 0.5 * normal(seed, policy.num_parameters, dtype=dtype)
    obs = normal(seed + 1, num_states, *obs_shape, dtype=dtype)
    actions, log_q = first_actions(policy(theta, obs), seeded(seed + 2))
    return policy, theta, RolloutSet(obs, actions, normal(seed + 3, *log_q.shape), log_q)


def case(surrogate: Surrogate, kind: str, **settings: int | torch.dtype) -> tuple[Policy, Tensor, RolloutSet]:
    q = every_action if surrogate is all_actions_surrogate else from_the_policy(4)
    return rollouts(kind, q, **settings)  # type: ignore[arg-type]


def away(theta: Tensor, size: float = 0.3) -> Tensor:
    return theta + size * normal(77, len(theta), dtype=theta.dtype)


# ---- double loops


def pi(policy: Policy, theta: Tensor, obs: Tensor, action: Tensor) -> Tensor:
    return policy(theta, obs[None]).log_prob(action[None]).exp()[0]


def loop_16(policy: Policy, theta: Tensor, batch: RolloutSet) -> Tensor:
    terms = []
    for obs, actions, q_values in zip(batch.obs, batch.actions, batch.q_values, strict=True):
        terms.append(sum(pi(policy, theta, obs, a) * q for a, q in zip(actions, q_values, strict=True)))
    return torch.stack(terms)


def loop_17(policy: Policy, theta: Tensor, batch: RolloutSet) -> Tensor:
    terms = []
    for obs, actions, q_values, log_q in zip(batch.obs, batch.actions, batch.q_values, batch.log_q, strict=True):
        above = below = torch.zeros((), dtype=torch.float64)
        for action, value, log in zip(actions, q_values, log_q, strict=True):
            weight = pi(policy, theta, obs, action) / math.exp(log)
            above, below = above + weight * value, below + weight
        terms.append(above / below)
    return torch.stack(terms)


def check_twins(surrogate: Surrogate, policy: Policy, theta: Tensor, batch: RolloutSet) -> None:
    """Terms and gradient, away from theta_old, where the weights differ."""
    loop = loop_16 if surrogate.__name__ == "all_actions_surrogate" else loop_17
    new = away(theta).requires_grad_()
    terms, expected = surrogate(policy(new, batch.obs), batch), loop(policy, new, batch)
    torch.testing.assert_close(terms, expected, rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(expected.mean(), new)
    torch.testing.assert_close(surrogate_gradient(policy, new, batch, surrogate), gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("surrogate", "kind"), CASES)
def test_terms_and_gradient_are_those_of_the_double_loop(surrogate: Surrogate, kind: str) -> None:
    check_twins(surrogate, *case(surrogate, kind))


@pytest.mark.parametrize("kind", DISCRETE)
def test_17_weights_by_q_when_q_is_uniform(kind: str) -> None:
    check_twins(self_normalised_surrogate, *rollouts(kind, uniformly(5)))


@pytest.mark.parametrize("kind", DISCRETE)
def test_with_every_action_once_17_is_16(kind: str) -> None:
    # Uniform q is a constant, and the probabilities of all actions add up to 1.
    policy, theta, batch = rollouts(kind, every_action)
    there = policy(away(theta), batch.obs)
    terms = [surrogate(there, batch) for surrogate in (all_actions_surrogate, self_normalised_surrogate)]
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-11, atol=1e-13)


LOG_PI = "log_prob_of_each(pi, batch.actions)"
LOG_WEIGHTS = f"{LOG_PI} - batch.log_q"
MISTAKES = {
    "q forgotten": (LOG_WEIGHTS, LOG_PI),
    "q multiplied": (LOG_WEIGHTS, f"{LOG_PI} + batch.log_q"),
    "normalised over states": (f"{LOG_WEIGHTS}, dim=1", f"{LOG_WEIGHTS}, dim=0"),
    "not normalised": (f"torch.softmax({LOG_WEIGHTS}, dim=1)", f"torch.exp({LOG_WEIGHTS})"),
    "weights held fixed": (f"{LOG_WEIGHTS}, dim=1)", f"{LOG_WEIGHTS}, dim=1).detach()"),
    "divided twice": ("(weights * batch.q_values).sum(1)", "(weights * batch.q_values).mean(1)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_17_would_be_noticed(mistake: str) -> None:
    broken = mutant(rollout_set, MISTAKES[mistake]).self_normalised_surrogate
    with pytest.raises((AssertionError, RuntimeError)):
        check_twins(broken, *rollouts("mlp-gaussian", from_the_policy(4)))


@pytest.mark.parametrize(("surrogate", "kind"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_chunked_equals_whole(surrogate: Surrogate, kind: str, dtype: torch.dtype, tolerance: float) -> None:
    policy, theta, batch = case(surrogate, kind, num_states=17, dtype=dtype)
    new = away(theta)
    value = surrogate_value(policy, new, batch, surrogate)
    gradient = surrogate_gradient(policy, new, batch, surrogate)
    assert gradient.dtype == dtype
    for size in (1, 7, 16, 40):
        assert surrogate_value(policy, new, batch, surrogate, size) == pytest.approx(value, rel=tolerance)
        chunked = surrogate_gradient(policy, new, batch, surrogate, size)
        assert (chunked - gradient).norm() <= tolerance * gradient.norm()


# ---- constants


def shifted(batch: RolloutSet, constants: Tensor) -> RolloutSet:
    return RolloutSet(batch.obs, batch.actions, batch.q_values + constants[:, None], batch.log_q)


@pytest.mark.parametrize(("surrogate", "kind"), CASES)
def test_a_constant_in_each_state_changes_no_gradient_of_16_or_17(surrogate: Surrogate, kind: str) -> None:
    policy, theta, batch = case(surrogate, kind)
    other = shifted(batch, 5 * normal(50, len(batch)))
    for at in (theta, away(theta)):
        before, after = (surrogate_gradient(policy, at, each, surrogate) for each in (batch, other))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
        rise = surrogate_value(policy, at, other, surrogate) - surrogate_value(policy, at, batch, surrogate)
        assert rise == pytest.approx((other.q_values - batch.q_values)[:, 0].mean().item(), abs=1e-11)


@pytest.mark.parametrize("head", ["categorical", "factored", "gaussian"])
def test_a_constant_changes_the_gradient_of_15_and_its_expectation_not(head: str) -> None:
    policy, theta, batch = rollouts(f"mlp-{head}", from_the_policy(1))
    constants = 5 * normal(50, len(batch))

    def gradient_of_constants(actions: Tensor, weights: Tensor | float, log_q: Tensor) -> Tensor:
        # Equation 15 is linear in Q: what the constants add to its gradient is the gradient with the constants for Q.
        return surrogate_gradient(policy, theta, Batch(batch.obs, actions, weights * constants, log_q))

    drawn = gradient_of_constants(batch.actions[:, 0], 1.0, batch.log_q[:, 0])
    assert drawn.norm() > 0.1
    pi_old = policy(theta, batch.obs)
    expected = sum(gradient_of_constants(a, w, pi_old.log_prob(a)) for a, w in weighted_actions(pi_old))
    torch.testing.assert_close(expected, torch.zeros_like(theta), rtol=0, atol=1e-12)


# ---- few actions


def all_draws(probabilities: Tensor, num_branches: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sequence of K actions, [K], and its probability when they are drawn independently."""
    for actions in itertools.product(range(len(probabilities)), repeat=num_branches):
        picked = torch.tensor(actions)
        yield picked, probabilities[picked].prod()


@pytest.mark.parametrize("num_branches", [1, 2, 3, 4])
def test_the_expected_gradient_of_17_is_k_minus_1_over_k_times_the_true_one(num_branches: int) -> None:
    # Exactly: the expectation over all sequences of K draws from pi_old, in one state with known Q.
    policy = mlp_policy(4, CategoricalHead(3), (5,))
    theta, obs, Q = normal(0, policy.num_parameters), normal(1, 1, 4), normal(2, 3)
    probabilities = policy(theta, obs).log_probs[0].exp()
    everything = RolloutSet(obs, torch.arange(3)[None], Q[None], torch.zeros(1, 3, dtype=torch.float64))
    true = surrogate_gradient(policy, theta, everything, all_actions_surrogate)
    expected = torch.zeros_like(theta)
    for actions, probability in all_draws(probabilities, num_branches):
        batch = RolloutSet(obs, actions[None], Q[actions][None], probabilities[actions].log()[None])
        expected += probability * surrogate_gradient(policy, theta, batch, self_normalised_surrogate)
    torch.testing.assert_close(expected, true * (num_branches - 1) / num_branches, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_branches", [2, 4])
def test_the_same_for_a_gaussian_by_sampling_and_more_states_do_not_mend_it(num_branches: int) -> None:
    # One state repeated, Q = 3 a + a^2 with a ~ N(m, 1): in m, the true gradient is 3 + 2 m.
    policy, num_states = linear_policy(1, GaussianHead(1)), 100_000
    theta = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)  # weight, bias = m, log std
    obs = torch.zeros(num_states, 1, dtype=torch.float64)
    actions, log_q = from_the_policy(num_branches)(policy(theta, obs), seeded(num_branches))
    Q = 3 * actions[..., 0] + actions[..., 0].square()
    # At theta_old all weights are 1 / K, and the gradient in m of a state's term is the covariance of a - m and Q.
    terms = ((actions[..., 0] - 0.5) * (Q - Q.mean(1, keepdim=True))).mean(1)
    batch = RolloutSet(obs, actions, Q, log_q)
    gradient = surrogate_gradient(policy, theta, batch, self_normalised_surrogate)[1].item()
    assert gradient == pytest.approx(terms.mean().item(), rel=1e-10)
    standard_error = terms.std().item() / math.sqrt(num_states)
    assert abs(gradient - 4.0 * (num_branches - 1) / num_branches) < 3 * standard_error
    assert standard_error < 0.03


# ---- q


def test_the_printed_17_is_inconsistent_with_uniform_q_and_the_general_one_is_not() -> None:
    # An example with exact value sum_a pi(a) Q(a) = 3.65. Printed, all weights are 1 at theta_old: the mean of Q.
    pi_old = torch.tensor([0.10, 0.20, 0.55, 0.15], dtype=torch.float64)
    Q = torch.tensor([1.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    policy = linear_policy(1, CategoricalHead(4))
    theta, obs = torch.cat([torch.zeros(4).double(), pi_old.log()]), torch.zeros(1, 1, dtype=torch.float64)
    expected = {"printed": 0.0, "general": 0.0}
    for actions, probability in all_draws(uniform, 4):
        for form, log_q in (("printed", pi_old[actions].log()), ("general", uniform[actions].log())):
            batch = RolloutSet(obs, actions[None], Q[actions][None], log_q[None])
            expected[form] += (probability * self_normalised_surrogate(policy(theta, batch.obs), batch)[0]).item()
    assert (pi_old @ Q).item() == pytest.approx(3.65)
    assert expected["printed"] == pytest.approx(3.25)
    assert expected["general"] == pytest.approx(3.55, abs=0.005)
    # With more branches the general form arrives at 3.65, and the printed one stays where it is.
    actions = torch.randint(4, (30, 2_000), generator=seeded(0))
    for log_q, limit in ((pi_old, 3.25), (uniform, 3.65)):
        batch = RolloutSet(obs.expand(30, 1), actions, Q[actions], log_q[actions].log())
        assert self_normalised_surrogate(policy(theta, batch.obs), batch).mean().item() == pytest.approx(
            limit, abs=0.02
        )


def test_drawn_actions_are_refused_by_16() -> None:
    policy, theta, batch = rollouts("mlp-categorical", uniformly(3))
    with pytest.raises(ValueError, match=r"needs every action .* exactly once; for drawn actions use equation 17"):
        all_actions_surrogate(policy(theta, batch.obs), batch)
    policy, theta, batch = rollouts("mlp-gaussian", from_the_policy(4))
    with pytest.raises(ValueError, match="needs every action"):
        all_actions_surrogate(policy(theta, batch.obs), batch)


# ---- first actions


@pytest.mark.parametrize("kind", ["mlp-categorical", "mlp-factored", "mlp-gaussian"])
def test_actions_from_the_policy_are_independent_draws_with_their_log_probability(kind: str) -> None:
    policy, theta, batch = rollouts(kind, from_the_policy(4), num_states=5_000)
    torch.testing.assert_close(log_prob_of_each(policy(theta, batch.obs), batch.actions), batch.log_q, rtol=0, atol=0)
    for kth in range(4):
        torch.testing.assert_close(policy(theta, batch.obs).log_prob(batch.actions[:, kth]), batch.log_q[:, kth])
    # Given the state, log q + entropy has mean 0, and independent draws of it have correlation 0 (4 standard errors).
    scores = batch.log_q + policy(theta, batch.obs).entropy()[:, None]
    correlations = torch.corrcoef(scores.T) - torch.eye(4)
    assert correlations.abs().max() < 4 / math.sqrt(5_000)


@pytest.mark.parametrize(("kind", "count"), [("mlp-categorical", 3), ("mlp-factored", 6)])
def test_uniform_actions_are_uniform_and_independent(kind: str, count: int) -> None:
    policy, theta, batch = rollouts(kind, uniformly(2), num_states=20_000)
    listed = all_actions(policy(theta, batch.obs))
    which = torch.stack([(batch.actions == a).view(20_000, 2, -1).all(-1) for a in listed]).double().argmax(0)
    pairs = torch.bincount(which[:, 0] * count + which[:, 1], minlength=count**2) / 20_000
    p = 1 / count**2
    assert (pairs - p).abs().max() < 4 * math.sqrt(p * (1 - p) / 20_000)
    torch.testing.assert_close(batch.log_q, torch.full((20_000, 2), -math.log(count), dtype=torch.float64))


@pytest.mark.parametrize("kind", ["mlp-categorical", "mlp-factored"])
def test_every_action_is_there_once(kind: str) -> None:
    policy, theta, batch = rollouts(kind, every_action)
    listed = torch.stack(all_actions(policy(theta, batch.obs)))
    for actions in batch.actions:
        assert torch.equal(actions, listed)
    probabilities = log_prob_of_each(policy(theta, batch.obs), batch.actions).exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize("q", [every_action, uniformly(3)])
def test_continuous_actions_cannot_be_listed(q: FirstActions) -> None:
    with pytest.raises(ValueError, match="cannot be listed or drawn uniformly: draw them from the policy"):
        rollouts("mlp-gaussian", q)


@PROPERTY
@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_log_prob_of_each_is_log_prob_one_by_one(seed: int, kind: str) -> None:
    policy, theta, batch = rollouts(kind, from_the_policy(3), num_states=4, seed=seed)
    distribution = policy(theta, batch.obs)
    columns = [distribution.log_prob(batch.actions[:, k]) for k in range(3)]
    assert torch.equal(log_prob_of_each(distribution, batch.actions), torch.stack(columns, dim=1))


# ---- the update


@pytest.mark.parametrize(("surrogate", "kind"), CASES)
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_both_feed_the_same_update(surrogate: Surrogate, kind: str, chunk_size: int | None) -> None:
    policy, theta, batch = case(surrogate, kind, num_states=15)
    trunk = States(normal(60, 40, *batch.obs.shape[1:]))
    problem, region = Problem(policy, batch, surrogate, trunk, chunk_size), TrustRegion(delta=0.02, fisher_stride=3)
    new, report = trpo_update(problem, theta, region)
    assert report.accepted, report.reason
    before, after = (surrogate(policy(at, batch.obs), batch).mean().item() for at in (theta, new))
    assert after > before
    assert (report.surrogate_before, report.surrogate_after) == pytest.approx((before, after), rel=1e-9, abs=1e-12)
    assert report.mean_kl == pytest.approx(mean_kl(policy, theta, new, trunk), rel=1e-9)
    assert report.mean_kl <= 0.02


def test_one_branch_tells_nothing_and_moves_nothing() -> None:
    policy, theta, batch = rollouts("mlp-gaussian", from_the_policy(1))
    new, report = trpo_update(Problem(policy, batch, self_normalised_surrogate), theta)
    assert report.reason == "the gradient is zero: nothing to improve"
    assert torch.equal(new, theta)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("surrogate", [all_actions_surrogate, self_normalised_surrogate])
def test_a_q_value_that_is_not_finite_never_reaches_theta(surrogate: Surrogate, bad: float) -> None:
    policy, theta, batch = rollouts("mlp-categorical", every_action)
    batch.q_values[4, 1] = bad
    new, report = trpo_update(Problem(policy, batch, surrogate), theta)
    assert report.reason == "the surrogate or its gradient is not finite"
    assert torch.equal(new, theta)


def test_a_slice_of_a_rollout_set_holds_the_same_states_of_every_column() -> None:
    _, _, batch = rollouts("mlp-gaussian", from_the_policy(4), num_states=11)
    thinned = batch[::3]
    assert isinstance(thinned, RolloutSet)
    for name, column in vars(batch).items():
        assert torch.equal(getattr(thinned, name), column[[0, 3, 6, 9]])
    with pytest.raises(ValueError, match="same number of samples in every field"):
        RolloutSet(batch.obs, batch.actions, batch.q_values[:5], batch.log_q)
