"""Equations 1 to 10 as truths: identities, simulations, bounds over thousands of random MDPs, Algorithm 1's optimum."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, chain, evaluate_policy, garnet, random_policy, simulate


def policy_of_kind(kind, mdp, rng):
    if kind == "deterministic":
        return torch.eye(mdp.num_actions, dtype=torch.float64)[rng.integers(0, mdp.num_actions, mdp.num_states)]
    return random_policy(mdp, rng, {"flat": 20.0, "any": 1.0, "peaked": 0.05}[kind])


@st.composite
def problems(draw, gammas=(0.0, 0.1, 0.5, 0.9, 0.99, 0.999)):
    """An MDP, an old policy and eight new ones; deterministic, nearly deterministic and nearly equal ones included."""
    num_states, num_actions = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    branching, seed = draw(st.integers(1, num_states)), draw(st.integers(0, 2**32 - 1))
    mdp = garnet(num_states, num_actions, branching, draw(st.sampled_from(gammas)), seed)
    rng = np.random.default_rng(seed)
    kinds = st.sampled_from(["flat", "any", "peaked", "deterministic"])
    pi_old = policy_of_kind(draw(kinds), mdp, rng)
    kind = draw(kinds)
    others = torch.stack([policy_of_kind(kind, mdp, rng) for _ in range(8)])
    alpha = draw(st.sampled_from([1.0, 0.5, 0.1, 1e-2, 1e-4]))
    return mdp, pi_old, others, alpha


def size_of_values(mdp):
    """What rounding errors of eta, L and the bounds are small against."""
    return 1 / (1 - mdp.gamma) ** 2


# Equations 1 to 4


@settings(max_examples=200, deadline=None)
@given(problems(gammas=(0.0, 0.5, 0.9)))
def test_equation_1_step_by_step_and_2_by_visits_are_exact(problem):
    mdp, pi_old, others, _ = problem
    pi_new = others[0]
    old, new = evaluate_policy(mdp, pi_old), evaluate_policy(mdp, pi_new)
    expected_advantage = (pi_new * old.A).sum(-1)
    gain, at_time_t = 0.0, mdp.rho0
    for t in range(400):
        gain = gain + mdp.gamma**t * at_time_t @ expected_advantage
        at_time_t = torch.einsum("s,sa,sat->t", at_time_t, pi_new, mdp.P)
    assert abs(old.eta + gain - new.eta) < 1e-12 * size_of_values(mdp)
    assert abs(old.eta + new.rho @ expected_advantage - new.eta) < 1e-13 * size_of_values(mdp)


def test_equation_1_by_simulation_within_standard_errors():
    mdp = garnet(6, 3, 2, 0.8, seed=1)
    rng = np.random.default_rng(1)
    pi_old, pi_new = random_policy(mdp, rng), random_policy(mdp, rng)
    old, new = evaluate_policy(mdp, pi_old), evaluate_policy(mdp, pi_new)
    states, actions = simulate(mdp, pi_new, num_trajectories=20_000, horizon=100, rng=rng)
    gains = (old.A[states, actions] * mdp.gamma ** torch.arange(100)).sum(-1)
    standard_error = gains.std() / len(gains) ** 0.5
    assert abs(old.eta + gains.mean() - new.eta) < 4.5 * standard_error
    # The check has teeth: the policies differ by far more than the noise.
    assert abs(new.eta - old.eta) > 10 * standard_error


@settings(max_examples=200, deadline=None)
@given(problems())
def test_equation_3_differs_from_2_in_the_visits_alone(problem):
    mdp, pi_old, others, _ = problem
    pi_new = others[0]
    old, new = evaluate_policy(mdp, pi_old), evaluate_policy(mdp, pi_new)

    def with_visits(rho):
        cells = itertools.product(range(mdp.num_states), range(mdp.num_actions))
        return old.eta + sum(rho[s] * pi_new[s, a] * old.A[s, a] for s, a in cells)

    tolerance = 1e-12 * size_of_values(mdp)
    assert abs(with_visits(new.rho) - new.eta) < tolerance
    assert abs(with_visits(old.rho) - ib.surrogate_objective(mdp, pi_old, pi_new)) < tolerance


def test_the_surrogate_serves_many_policies_at_once():
    mdp = garnet(4, 3, 2, 0.9, seed=2)
    rng = np.random.default_rng(2)
    pi_old, many = random_policy(mdp, rng), torch.stack([random_policy(mdp, rng) for _ in range(5)])
    functions = [
        ib.surrogate_objective, ib.printed_theorem_bound, ib.total_variation_bound, ib.kl_bound, ib.linear_bound,
    ]  # fmt: skip
    for function in functions:
        alone = torch.stack([function(mdp, pi_old, pi) for pi in many])
        torch.testing.assert_close(function(mdp, pi_old, many), alone, rtol=0, atol=1e-12)


def softmax_problem(seed):
    mdp = garnet(5, 3, 2, 0.9, seed=seed)
    return mdp, torch.as_tensor(np.random.default_rng(seed).normal(size=(5, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_equation_4_gradients_agree_by_autodiff_and_finite_differences(seed):
    mdp, logits = softmax_problem(seed)
    pi_old = logits.softmax(-1)

    def eta(logits):
        return evaluate_policy(mdp, logits.softmax(-1)).eta

    def surrogate(logits):
        return ib.surrogate_objective(mdp, pi_old, logits.softmax(-1))

    assert abs(surrogate(logits) - eta(logits)) < 1e-12
    slopes = [torch.func.grad(f)(logits) for f in (eta, surrogate)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-12)
    assert slopes[0].abs().max() > 0.01
    h = 1e-5
    for i, j in itertools.product(range(5), range(3)):
        nudge = torch.zeros_like(logits)
        nudge[i, j] = h
        for f in (eta, surrogate):
            slope = (f(logits + nudge) - f(logits - nudge)) / (2 * h)
            assert abs(slope - slopes[0][i, j]) < 1e-8
    # To first order only: the curvatures differ.
    curvatures = [torch.autograd.functional.hessian(f, logits) for f in (eta, surrogate)]
    assert (curvatures[0] - curvatures[1]).abs().max() > 0.01


# Distances


def naive_kl(p, q):
    return sum(a * math.log(a / b) if b > 0 else math.inf for a, b in zip(p, q, strict=True) if a > 0)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_distances_against_their_definitions_and_pinsker(problem):
    mdp, pi_old, others, alpha = problem
    for pi_new in (others[0], ib.mixture_policy(pi_old, others[0], alpha)):
        kl, distance = ib.kl_divergence(pi_old, pi_new), ib.total_variation(pi_old, pi_new)
        for s in range(mdp.num_states):
            assert kl[s].item() == pytest.approx(naive_kl(pi_old[s].tolist(), pi_new[s].tolist()), rel=1e-9, abs=1e-13)
            apart = sum(max(a - b, 0) for a, b in zip(pi_old[s].tolist(), pi_new[s].tolist(), strict=True))
            assert distance[s].item() == pytest.approx(apart, abs=1e-14)
        assert (2 * distance**2 <= kl * (1 + 1e-9) + 1e-30).all()
        assert ib.max_kl(pi_old, pi_new) == max(kl)
        assert ib.max_total_variation(pi_old, pi_new) == max(distance)


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-8])
def test_kl_keeps_its_digits_between_nearly_equal_policies(size):
    p = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    q = p + size * torch.tensor([[1.0, -3.0, 2.0]], dtype=torch.float64)
    with mpmath.workdps(50):
        # The stored numbers sum to 1 up to rounding only; the exact value is that of the distributions they stand for.
        ps, qs = ([mpmath.mpf(x) / mpmath.fsum(row.tolist()) for x in row.tolist()] for row in (p[0], q[0]))
        exact = float(mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(ps, qs, strict=True)))
    assert ib.kl_divergence(p, q).item() == pytest.approx(exact, rel=1e-7)


def test_kl_is_asymmetric_infinite_where_an_action_is_dropped_and_finite_where_one_is_new():
    p, q = [[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]
    assert ib.max_kl(p, q) == math.inf
    assert ib.max_kl(q, p).item() == pytest.approx(math.log(2))
    # Nearly dropped is not dropped, however small the rest.
    assert ib.max_kl([[0.5, 0.5]], [[1.0, 1e-300]]).item() == pytest.approx(0.5 * math.log(0.25e300))


def test_kl_is_differentiable_and_flat_where_the_policies_agree():
    p = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    logits = p.log().requires_grad_()
    (slope,) = torch.autograd.grad(ib.max_kl(p, logits.softmax(-1)), logits)
    assert slope.abs().max() < 1e-15
    assert torch.autograd.gradcheck(lambda z: ib.kl_divergence(p, z.softmax(-1)), (logits.detach().requires_grad_(),))
    curvature = torch.autograd.functional.hessian(lambda z: ib.max_kl(p, z.softmax(-1)), logits.detach())
    fisher = torch.diag(p[0]) - torch.outer(p[0], p[0])
    torch.testing.assert_close(curvature[0, :, 0], fisher, rtol=0, atol=1e-12)


# Bounds


@settings(max_examples=2000, deadline=None)
@given(problems())
def test_no_corrected_bound_is_violated(problem):
    mdp, pi_old, others, alpha = problem
    new = torch.cat([others, ib.mixture_policy(pi_old, others, alpha)])
    eta = evaluate_policy(mdp, new).eta
    rounding = 1e-12 * size_of_values(mdp)
    for bound in (ib.total_variation_bound, ib.kl_bound, ib.linear_bound):
        excess = bound(mdp, pi_old, new) - eta
        assert excess.max() <= rounding, bound.__name__
    mixtures = eta[8:]
    tight, simple = (f(mdp, pi_old, others, alpha) for f in (ib.mixture_bound, ib.simple_mixture_bound))
    assert (tight - mixtures).max() <= rounding
    assert (simple - tight).max() <= rounding
    # Pinsker: equation 9 never promises more than the total variation bound that it follows from.
    assert (ib.kl_bound(mdp, pi_old, new) - ib.total_variation_bound(mdp, pi_old, new)).max() <= rounding


def small_violation_search(gamma, alpha, draws):
    """For many random MDPs and mixtures with D_TV^max = alpha: (L - eta) / (what the printed theorem allows)."""
    ratios = []
    for seed in range(draws):
        mdp, rng = garnet(3, 2, 2, gamma, seed), np.random.default_rng(seed)
        pi_old, other = random_policy(mdp, rng), random_policy(mdp, rng)
        pi_new = ib.mixture_policy(pi_old, other, alpha / ib.max_total_variation(pi_old, other))
        surrogate = ib.surrogate_objective(mdp, pi_old, pi_new)
        lies_by = surrogate - evaluate_policy(mdp, pi_new).eta
        ratios.append(float(lies_by / (surrogate - ib.printed_theorem_bound(mdp, pi_old, pi_new))))
    return np.array(ratios)


def test_the_printed_theorem_is_violated_and_the_more_so_the_smaller_the_step():
    coarse, fine = small_violation_search(0.5, 0.02, 200), small_violation_search(0.5, 0.0002, 200)
    assert (coarse > 1).mean() > 0.2
    assert coarse.max() > 5
    # Penalty of order alpha^3, error of order alpha^2: a hundredth of the step, a hundred times the ratio.
    clear = coarse > 1
    np.testing.assert_allclose(fine[clear] / coarse[clear], 100, rtol=0.2)
    assert fine.max() > 500


@settings(max_examples=200, deadline=None)
@given(problems(gammas=(0.1, 0.9)))
def test_epsilon_7_belongs_to_the_policy_that_is_mixed_in(problem):
    mdp, pi_old, others, alpha = problem
    of_prime = ib.largest_expected_advantage(mdp, pi_old, others)
    of_mixture = ib.largest_expected_advantage(mdp, pi_old, ib.mixture_policy(pi_old, others, alpha))
    torch.testing.assert_close(of_mixture, alpha * of_prime, rtol=0, atol=1e-12)
    assert (of_prime <= ib.largest_advantage(mdp, pi_old) + 1e-12).all()
    # And L is linear along the mixture.
    old, all_the_way = evaluate_policy(mdp, pi_old).eta, ib.surrogate_objective(mdp, pi_old, others)
    surrogate = ib.surrogate_objective(mdp, pi_old, ib.mixture_policy(pi_old, others, alpha))
    torch.testing.assert_close(surrogate, (1 - alpha) * old + alpha * all_the_way, rtol=0, atol=1e-11)


def test_bounds_by_hand():
    # One state of two actions, pays 1 and leads on, or pays 0 and ends: V = pi / (1 - gamma pi).
    gamma = 0.5
    P = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
    mdp = TabularMDP(P, [[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0], gamma)
    old, new = [[0.5, 0.5], [0.5, 0.5]], [[0.75, 0.25], [0.5, 0.5]]
    # V = 2/3, Q = (4/3, 0), A = (2/3, -2/3), rho(first) = 4/3.
    surrogate = 2 / 3 + 4 / 3 * (0.75 - 0.25) * 2 / 3
    assert ib.surrogate_objective(mdp, old, new).item() == pytest.approx(surrogate)
    assert evaluate_policy(mdp, new).eta.item() == pytest.approx(0.75 / (1 - 0.375))
    factor = 2 * gamma / (1 - gamma) ** 2
    tv, kl, expected, largest = 0.25, 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), 1 / 3, 2 / 3
    for bound, penalty in [
        (ib.printed_theorem_bound, factor * expected * tv**2),
        (ib.total_variation_bound, 2 * factor * largest * tv**2),
        (ib.kl_bound, factor * largest * kl),
        (ib.linear_bound, factor * expected * tv),
    ]:
        assert bound(mdp, old, new).item() == pytest.approx(surrogate - penalty), bound.__name__
    # The same new policy as a mixture: half way to always going on, a policy whose epsilon is 2/3.
    prime = [[1.0, 0.0], [0.5, 0.5]]
    assert ib.mixture_policy(old, prime, 0.5).tolist() == new
    assert ib.simple_mixture_bound(mdp, old, prime, 0.5).item() == pytest.approx(surrogate - factor * 2 / 3 * 0.25)
    tight = 2 * (2 / 3) * gamma / ((1 - gamma * 0.5) * (1 - gamma)) * 0.25
    assert ib.mixture_bound(mdp, old, prime, 0.5).item() == pytest.approx(surrogate - tight)


def test_limits_of_the_bounds():
    rng = np.random.default_rng(0)
    mdp, greedy = garnet(4, 3, 2, 0.9, 0), torch.tensor([[1.0, 0.0, 0.0]] * 4, dtype=torch.float64)
    pi = random_policy(mdp, rng)
    eta = evaluate_policy(mdp, pi).eta
    for bound in (ib.printed_theorem_bound, ib.total_variation_bound, ib.kl_bound, ib.linear_bound):
        assert abs(bound(mdp, pi, pi) - eta) < 1e-12, bound.__name__
    assert abs(ib.mixture_bound(mdp, pi, greedy, 0.0) - eta) < 1e-12
    assert ib.kl_bound(mdp, pi, greedy) == -math.inf
    # Without a future L is exact and nothing has to be subtracted, not even for an infinite divergence.
    shortsighted = TabularMDP(mdp.P, mdp.r, mdp.rho0, 0.0)
    assert abs(ib.kl_bound(shortsighted, pi, greedy) - evaluate_policy(shortsighted, greedy).eta) < 1e-12
    # A curve of mixtures in one call; at alpha = 1, (6) and (8) agree up to their (1 - gamma).
    alphas = torch.linspace(0, 1, 11, dtype=torch.float64)
    curve = ib.mixture_bound(mdp, pi, greedy, alphas)
    alone = torch.stack([ib.mixture_bound(mdp, pi, greedy, float(a)) for a in alphas])
    torch.testing.assert_close(curve, alone, rtol=0, atol=1e-12)


# Coupling


@settings(max_examples=200, deadline=None)
@given(problems())
def test_maximal_coupling_has_the_right_marginals_and_parts_as_often_as_total_variation(problem):
    _, pi_old, others, alpha = problem
    for pi_new in (others[0], ib.mixture_policy(pi_old, others[0], alpha), pi_old):
        joint = ib.maximal_coupling(pi_old, pi_new)
        assert joint.min() >= 0
        torch.testing.assert_close(joint.sum(-1), pi_old, rtol=0, atol=1e-14)
        torch.testing.assert_close(joint.sum(-2), pi_new, rtol=0, atol=1e-14)
        parts = joint.sum((-2, -1)) - joint.diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(parts, ib.total_variation(pi_old, pi_new), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_no_coupling_agrees_more_often_by_linear_programming(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet([0.5] * 4), rng.dirichlet([0.5] * 4)
    marginals = np.vstack([np.kron(np.eye(4), np.ones(4)), np.kron(np.ones(4), np.eye(4))])
    best = linprog(-np.eye(4).ravel(), A_eq=marginals, b_eq=np.concatenate([p, q]), bounds=(0, 1))
    assert best.status == 0
    assert ib.maximal_coupling(p, q).trace().item() == pytest.approx(-best.fun, abs=1e-9)


def test_coupled_runs_each_follow_their_own_policy_and_part_as_the_argument_says():
    mdp = garnet(4, 3, 3, 0.9, seed=3)
    pi_old = random_policy(mdp, np.random.default_rng(3))
    # Total variation 0.1 in every state, so that the chance of still agreeing after t steps is exactly 0.9^t.
    pi_new = pi_old.clone()
    pi_new[torch.arange(4), pi_old.argmax(-1)] -= 0.1
    pi_new[torch.arange(4), pi_old.argmin(-1)] += 0.1
    n, horizon = 20_000, 12
    states, actions = ib.simulate_coupled(mdp, pi_old, pi_new, n, horizon, np.random.default_rng(4))
    assert states.shape == actions.shape == (2, n, horizon)
    together = (actions[0] == actions[1]).cumprod(-1)
    for t in range(horizon):
        chance = 0.9 ** (t + 1)
        assert abs(together[:, t].double().mean() - chance) < 4.5 * math.sqrt(chance * (1 - chance) / n)
    # While their actions agree they are in the same state.
    assert (states[0] == states[1])[:, 1:][together[:, :-1] == 1].all()
    for k, pi in enumerate((pi_old, pi_new)):
        at_time_t = mdp.rho0
        for t in range(horizon):
            pairs = torch.bincount(states[k, :, t] * 3 + actions[k, :, t], minlength=12) / n
            expected = (at_time_t[:, None] * pi).flatten()
            assert ((pairs - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-12).all()
            at_time_t = torch.einsum("s,sa,sat->t", at_time_t, pi, mdp.P)


def test_a_policy_coupled_with_itself_never_parts():
    mdp = garnet(4, 3, 3, 0.9, seed=5)
    pi = random_policy(mdp, np.random.default_rng(5))
    states, actions = ib.simulate_coupled(mdp, pi, pi, 500, 50, np.random.default_rng(0))
    assert torch.equal(states[0], states[1])
    assert torch.equal(actions[0], actions[1])


# Algorithm 1: one step


def promise(mdp, pi_old, pi_new):
    return float(ib.kl_bound(mdp, pi_old, pi_new))


def by_general_optimiser(mdp, pi):
    """Equation 10 by SLSQP over probabilities and a KL radius: the same maximum, by a method that knows none of it."""
    old = evaluate_policy(mdp, pi)
    coefficient = float(ib.penalty_coefficient(ib.largest_advantage(mdp, pi), mdp.gamma))
    weights = (old.rho[:, None] * old.A).numpy()
    table, shape = pi.numpy(), pi.shape

    def kl_room(z):
        return z[-1] - (table * np.log(table / np.maximum(z[:-1].reshape(shape), 1e-12))).sum(-1)

    found = minimize(
        lambda z: -(weights.ravel() @ z[:-1] - coefficient * z[-1]),
        np.append(table.ravel(), 0.01),
        jac=lambda _: np.append(-weights.ravel(), coefficient),
        constraints=[
            {"type": "eq", "fun": lambda z: z[:-1].reshape(shape).sum(-1) - 1},
            {"type": "ineq", "fun": kl_room},
        ],
        bounds=[(1e-9, 1)] * table.size + [(0, None)],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    new = np.maximum(found.x[:-1].reshape(shape), 0)
    return new / new.sum(-1, keepdims=True)


@pytest.mark.parametrize("gamma", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_guaranteed_step_against_a_general_optimiser(gamma, seed):
    mdp = garnet(3, 3, 2, gamma, seed)
    pi = random_policy(mdp, np.random.default_rng(seed), 2.0)
    step = ib.guaranteed_step(mdp, pi)
    rival = by_general_optimiser(mdp, pi)
    gain = promise(mdp, pi, step) - float(evaluate_policy(mdp, pi).eta)
    rival_gain = promise(mdp, pi, rival) - float(evaluate_policy(mdp, pi).eta)
    assert rival_gain > 0
    assert -1e-10 <= gain - rival_gain < 1e-3 * gain
    np.testing.assert_allclose(step.numpy(), rival, atol=2e-3)


@pytest.mark.parametrize("row", [[0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
@pytest.mark.parametrize("kappa", [0.001, 0.1, 1.0])
def test_the_best_policy_within_a_kl_radius_against_a_dense_grid(row, kappa):
    pi, advantages = torch.tensor([row], dtype=torch.float64), torch.tensor([[1.0, 0.7, -2.0]], dtype=torch.float64)
    best, price = ib.best_within_kl(pi, advantages, kappa)
    assert ib.max_kl(pi, best) <= kappa * (1 + 1e-9)
    k = torch.arange(1001, dtype=torch.float64) / 1000
    grid = torch.stack([k[:, None].expand(1001, 1001), k.expand(1001, 1001)], dim=-1).reshape(-1, 2)
    grid = torch.cat([grid, 1 - grid.sum(-1, keepdim=True)], dim=-1)
    grid = grid[grid[:, 2] > -1e-12].clamp(min=0)
    inside = grid[ib.kl_divergence(pi, grid) <= kappa]
    value = float((best * advantages).sum())
    rival = float((inside @ advantages[0]).max()) if len(inside) else float((pi * advantages).sum())
    assert rival <= value + 1e-12
    # The grid comes close, so the claimed value is attained, except where the allowed set is thinner than the grid.
    if kappa >= 0.1:
        assert value - rival < 0.01
    # The price is the slope of the best value in kappa.
    h = 1e-4 * kappa
    lower, upper = (float((ib.best_within_kl(pi, advantages, kappa + d)[0] * advantages).sum()) for d in (-h, h))
    assert float(price) == pytest.approx((upper - lower) / (2 * h), rel=1e-5, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(problems(), st.sampled_from([1e-9, 1e-4, 0.03, 1.0, 30.0]))
def test_the_best_policy_within_a_kl_radius_meets_its_kkt_conditions(problem, kappa):
    mdp, pi, _, _ = problem
    advantages = evaluate_policy(mdp, pi).A
    scale = float(advantages.abs().max())
    best, price = ib.best_within_kl(pi, advantages, kappa)
    assert best.min() >= 0
    assert (best.sum(-1) - 1).abs().max() < 1e-14
    assert ((best > 0) >= (pi > 0)).all()
    kl = ib.kl_divergence(pi, best)
    assert (kl <= kappa * (1 + 1e-6) + 1e-14).all()
    assert price.min() >= 0
    for s in range(mdp.num_states):
        if price[s] < 1e-6 * scale:
            # Nothing left to buy: all but nothing is on best actions, or the old policy was there already.
            shortfall = advantages[s].max() - best[s] @ advantages[s]
            assert shortfall < 1e-5 * scale
            continue
        assert kl[s] == pytest.approx(kappa, rel=1e-5)
        # Stationarity: A(a) + lam pi(a)/new(a) = nu where new(a) > 0, and A(a) <= nu where new(a) = 0.
        taken = best[s] > 0
        multiplier = advantages[s] + price[s] * torch.where(taken, pi[s] / torch.where(taken, best[s], 1), 0)
        nu = multiplier[taken].max()
        solid = taken & (best[s] > 1e-200)
        assert (multiplier[solid] - nu).abs().max() < 1e-8 * max(scale, float(nu.abs()))
        assert (multiplier[~taken] <= nu + 1e-8 * scale).all()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_no_candidate_promises_more_than_a_guaranteed_step(problem):
    mdp, pi, others, alpha = problem
    step = ib.guaranteed_step(mdp, pi)
    best, rounding = promise(mdp, pi, step), 1e-12 * size_of_values(mdp)
    assert best >= float(evaluate_policy(mdp, pi).eta) - rounding
    assert float(evaluate_policy(mdp, step).eta) >= best - rounding
    candidates = [others, ib.mixture_policy(pi, others, alpha), ib.mixture_policy(step, others, alpha)]
    candidates += [ib.mixture_policy(step, others, 1e-6), ib.mixture_policy(pi, step, torch.tensor([0.5, 0.9, 0.999]))]
    assert ib.kl_bound(mdp, pi, torch.cat(candidates)).max() <= best + rounding


def test_a_step_touches_the_kl_radius_in_every_state_that_has_something_to_gain():
    mdp = garnet(5, 3, 3, 0.9, seed=0)
    pi = random_policy(mdp, np.random.default_rng(0))
    pi[2] = torch.eye(3, dtype=torch.float64)[evaluate_policy(mdp, pi).A[2].argmax()]
    pi[2] = torch.eye(3, dtype=torch.float64)[evaluate_policy(mdp, pi).A[2].argmax()]
    assert evaluate_policy(mdp, pi).A[2].argmax() == pi[2].argmax()
    kl = ib.kl_divergence(pi, ib.guaranteed_step(mdp, pi))
    assert kl[2] == 0
    torch.testing.assert_close(kl[[0, 1, 3, 4]], kl[0].expand(4), rtol=1e-7, atol=0)
    # Small: of the order (slope of L / C)^2.
    assert 0 < kl[0] < 1e-3


def test_a_deterministic_policy_is_never_left_when_gamma_is_a_third_or_more():
    # KL is linear, not quadratic, in the probability moved off a certain action. Moving m gains at most
    # eps m / (1 - gamma) and costs C m with C = 2 eps gamma / (1 - gamma)^2, which is more if gamma > 1/3.
    for seed, gamma in itertools.product(range(10), (0.34, 0.9)):
        mdp = garnet(4, 3, 2, gamma, seed)
        pi = policy_of_kind("deterministic", mdp, np.random.default_rng(seed))
        assert torch.equal(ib.guaranteed_step(mdp, pi), pi)
    moved = 0
    for seed in range(10):
        mdp = garnet(4, 3, 2, 0.02, seed)
        pi = policy_of_kind("deterministic", mdp, np.random.default_rng(seed))
        step = ib.guaranteed_step(mdp, pi)
        moved += bool(evaluate_policy(mdp, step).eta > evaluate_policy(mdp, pi).eta + 0.01)
    assert moved >= 8


def test_limits_of_a_guaranteed_step():
    rng = np.random.default_rng(0)
    # No future: no penalty, so the best action at once (equation 20, policy iteration).
    shortsighted = garnet(4, 3, 2, 0.0, 0)
    pi = random_policy(shortsighted, rng)
    greedy = torch.nn.functional.one_hot(shortsighted.r.argmax(-1), 3).double()
    torch.testing.assert_close(ib.guaranteed_step(shortsighted, pi), greedy, rtol=0, atol=1e-12)
    # All actions alike: rounding in Q - V is not an advantage, the policy stays.
    P = np.repeat(rng.dirichlet([1] * 4, size=4)[:, None], 3, axis=1)
    alike = TabularMDP(P, np.repeat(rng.normal(size=(4, 1)), 3, axis=1), [0.25] * 4, 0.95)
    pi = random_policy(alike, rng)
    assert evaluate_policy(alike, pi).A.abs().max() > 0
    assert torch.equal(ib.guaranteed_step(alike, pi), pi)
    # States that are never reached cannot pay for a step.
    P = np.zeros((2, 2, 2))
    P[:, :, 0] = 1
    unreachable = TabularMDP(P, [[1.0, 1.0], [0.0, 1.0]], [1.0, 0.0], 0.5)
    pi = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert torch.equal(ib.guaranteed_step(unreachable, pi), pi)


# Algorithm 1: all of it


@settings(max_examples=50, deadline=None)
@given(problems())
def test_eta_never_falls_along_algorithm_1(problem):
    mdp, pi, _, _ = problem
    eta = evaluate_policy(mdp, pi).eta
    for new in ib.guaranteed_policy_iteration(mdp, pi, iterations=5):
        promised = ib.kl_bound(mdp, pi, new)
        pi, before, eta = new, eta, evaluate_policy(mdp, new).eta
        rounding = 1e-12 * max(1.0, float(evaluate_policy(mdp, new).V.abs().max()))
        assert eta - before >= -rounding
        assert eta - promised >= -rounding


def test_a_long_run_never_falls_by_more_than_1e_12_and_its_steps_stay_tiny():
    mdp = chain(5, gamma=0.9)
    pi = torch.full((5, 2), 0.5, dtype=torch.float64)
    policies = torch.stack([pi, *ib.guaranteed_policy_iteration(mdp, pi, 60)])
    eta = evaluate_policy(mdp, policies).eta
    assert eta.diff().min() > -1e-12
    assert eta[-1] > eta[0]
    assert max(ib.max_kl(a, b) for a, b in itertools.pairwise(policies)) < 1e-3


def test_algorithm_1_finds_the_optimum_where_its_steps_are_not_tiny():
    mdp = garnet(4, 3, 2, 0.1, seed=0)
    tables = itertools.product(torch.eye(3, dtype=torch.float64), repeat=4)
    best = evaluate_policy(mdp, torch.stack([torch.stack(rows) for rows in tables])).eta.max()
    *_, last = ib.guaranteed_policy_iteration(mdp, random_policy(mdp, np.random.default_rng(0)), 40)
    assert abs(evaluate_policy(mdp, last).eta - best) < 1e-6


# What is refused


def test_bad_input_is_refused_in_one_line():
    mdp = garnet(3, 2, 2, 0.9, 0)
    pi = random_policy(mdp, np.random.default_rng(0))
    wrong = pi.clone()
    wrong[1, 0] += 0.1
    functions = [
        ib.surrogate_objective, ib.printed_theorem_bound, ib.total_variation_bound, ib.kl_bound, ib.linear_bound,
        ib.largest_expected_advantage,
    ]  # fmt: skip
    for function in functions:
        for pair in ((pi, wrong), (wrong, pi)):
            with pytest.raises(ValueError, match=r"^the policy has a row that sums to 1\.1, but probabilities must"):
                function(mdp, *pair)
    with pytest.raises(ValueError, match=r"^the policy has shape \(3, 3\), but this MDP needs \(3, 2\)$"):
        next(ib.guaranteed_policy_iteration(mdp, torch.full((3, 3), 1 / 3), 1))
    for alpha in (-0.1, 1.1, float("nan")):
        for call in (
            lambda alpha=alpha: ib.mixture_policy(pi, pi, alpha),
            lambda alpha=alpha: ib.mixture_bound(mdp, pi, pi, alpha),
            lambda alpha=alpha: ib.simple_mixture_bound(mdp, pi, pi, alpha),
        ):
            with pytest.raises(ValueError, match=r"^alpha is a mixing weight and must be between 0 and 1$"):
                call()
    for kappa in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"^kappa is {kappa}, but a KL radius must be above 0$"):
            ib.best_within_kl(pi, mdp.r, kappa)
