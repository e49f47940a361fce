"""The exact solution of a finite MDP against its definitions: sums over time, simulation, hand-worked cases."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_lessons.mdp import (
    TabularMDP,
    chain,
    check_distributions,
    draw,
    evaluate_policy,
    garnet,
    grid_world,
    random_policy,
    simulate,
)


@st.composite
def problems(draw_from):
    """An MDP and a policy; hard ones included: deterministic policies, one state, one action, gamma 0 and near 1."""
    num_states, num_actions = draw_from(st.integers(1, 6)), draw_from(st.integers(1, 4))
    branching, seed = draw_from(st.integers(1, num_states)), draw_from(st.integers(0, 2**32 - 1))
    mdp = garnet(num_states, num_actions, branching, draw_from(st.sampled_from([0.0, 0.5, 0.9, 0.99])), seed)
    return mdp, random_policy(mdp, np.random.default_rng(seed), draw_from(st.sampled_from([0.01, 0.3, 1.0, 10.0])))


def visits_and_return(mdp, pi, horizon):
    """The definitions, summed over time: rho and eta, in numpy, with loops."""
    P, r, pi = mdp.P.numpy(), mdp.r.numpy(), pi.numpy()
    visits, at_time_t, total = np.zeros(mdp.num_states), mdp.rho0.numpy(), 0.0
    for t in range(horizon):
        visits = visits + mdp.gamma**t * at_time_t
        following = np.zeros(mdp.num_states)
        for s, a in itertools.product(range(mdp.num_states), range(mdp.num_actions)):
            total += mdp.gamma**t * at_time_t[s] * pi[s, a] * r[s, a]
            following += at_time_t[s] * pi[s, a] * P[s, a]
        at_time_t = following
    return visits, total


@settings(max_examples=300, deadline=None)
@given(problems())
def test_evaluation_satisfies_the_definitions(problem):
    mdp, pi = problem
    found = evaluate_policy(mdp, pi)
    scale = 1e-13 / (1 - mdp.gamma) ** 2
    torch.testing.assert_close(found.Q, mdp.r + mdp.gamma * mdp.P @ found.V, rtol=0, atol=scale)
    torch.testing.assert_close((pi * found.Q).sum(-1), found.V, rtol=0, atol=scale)
    torch.testing.assert_close(found.A, found.Q - found.V[:, None], rtol=0, atol=0)
    assert abs(found.rho.sum() - 1 / (1 - mdp.gamma)) < scale
    assert found.rho.min() >= 0
    assert abs(found.eta - (found.rho[:, None] * pi * mdp.r).sum()) < scale


@pytest.mark.parametrize("gamma", [0.0, 0.6, 0.9])
def test_visits_and_return_are_the_sums_over_time(gamma):
    mdp = garnet(5, 3, 2, gamma, seed=0)
    pi = random_policy(mdp, np.random.default_rng(0))
    found = evaluate_policy(mdp, pi)
    visits, total = visits_and_return(mdp, pi, horizon=400)
    np.testing.assert_allclose(found.rho.numpy(), visits, atol=1e-12)
    np.testing.assert_allclose(found.eta.numpy(), total, atol=1e-12)


def test_rewards_of_the_state_alone_as_in_the_paper():
    mdp = garnet(5, 3, 2, 0.9, seed=1)
    state_rewards = torch.arange(5.0, dtype=torch.float64)
    mdp = TabularMDP(mdp.P, state_rewards[:, None].expand(5, 3), mdp.rho0, mdp.gamma)
    found = evaluate_policy(mdp, random_policy(mdp, np.random.default_rng(1)))
    assert abs(found.eta - found.rho @ state_rewards) < 1e-12


def test_many_policies_at_once_are_evaluated_like_each_alone():
    mdp = garnet(4, 3, 2, 0.9, seed=2)
    rng = np.random.default_rng(2)
    pis = torch.stack([random_policy(mdp, rng) for _ in range(6)]).reshape(2, 3, 4, 3)
    together = evaluate_policy(mdp, pis)
    for i, j in itertools.product(range(2), range(3)):
        alone = evaluate_policy(mdp, pis[i, j])
        for name in ("eta", "V", "Q", "A", "rho"):
            torch.testing.assert_close(getattr(together, name)[i, j], getattr(alone, name), rtol=0, atol=1e-13)


def test_numpy_lists_and_tensors_are_served_alike():
    mdp = garnet(3, 2, 2, 0.8, seed=3)
    pi = random_policy(mdp, np.random.default_rng(3))
    copy = TabularMDP(P=mdp.P.numpy(), r=mdp.r.tolist(), rho0=mdp.rho0.numpy(), gamma=0.8)
    expected = evaluate_policy(mdp, pi)
    for given_pi in (pi.numpy(), pi.tolist()):
        found = evaluate_policy(copy, given_pi)
        assert found.eta.dtype == torch.float64
        torch.testing.assert_close(found.A, expected.A, rtol=0, atol=0)


def test_an_mdp_keeps_its_own_copy_of_the_arrays():
    P, r = np.ones((1, 1, 1)), np.ones((1, 1))
    mdp = TabularMDP(P, r, np.ones(1), 0.5)
    r[0, 0] = 7
    assert evaluate_policy(mdp, [[1.0]]).eta == 2


def test_everything_is_differentiable_in_the_policy():
    mdp = garnet(3, 3, 2, 0.9, seed=4)
    logits = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def quantities(logits):
        found = evaluate_policy(mdp, logits.softmax(-1))
        return found.eta, found.V, found.Q, found.A, found.rho

    assert torch.autograd.gradcheck(quantities, (logits,))
    # The policy gradient theorem: d eta / d logits = rho(s) pi(a|s) A(s, a).
    found = evaluate_policy(mdp, logits.softmax(-1))
    (gradient,) = torch.autograd.grad(found.eta, logits)
    expected = found.rho[:, None] * logits.softmax(-1) * found.A
    torch.testing.assert_close(gradient, expected.detach(), rtol=0, atol=1e-12)


# Simulation


def test_simulated_visits_and_returns_agree_with_the_exact_ones_within_standard_errors():
    mdp = garnet(4, 3, 2, 0.8, seed=5)
    pi = random_policy(mdp, np.random.default_rng(5))
    exact = evaluate_policy(mdp, pi)
    states, actions = simulate(mdp, pi, num_trajectories=20_000, horizon=80, rng=np.random.default_rng(6))
    assert states.shape == actions.shape == (20_000, 80)
    discounts = mdp.gamma ** torch.arange(80)
    per_trajectory = torch.stack([((states == s) * discounts).sum(-1) for s in range(4)], dim=-1)
    returns = (mdp.r[states, actions] * discounts).sum(-1)
    for samples, truth in ((per_trajectory, exact.rho), (returns[:, None], exact.eta[None])):
        standard_error = samples.std(0) / len(samples) ** 0.5
        assert ((samples.mean(0) - truth).abs() / standard_error).max() < 4.5
        assert (standard_error < 0.02).all()


def test_simulation_takes_its_randomness_from_the_generator_alone():
    mdp = garnet(4, 3, 2, 0.8, seed=7)
    pi = random_policy(mdp, np.random.default_rng(7))
    first, again, other = (simulate(mdp, pi, 50, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_draw_inverts_the_cumulative_distribution_and_never_draws_the_impossible():
    row = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0], dtype=torch.float64)
    uniforms = torch.tensor([0.0, 0.1, 0.2499, 0.25, 0.9, np.nextafter(1, 0)], dtype=torch.float64)
    assert draw(row.expand(6, -1), uniforms).tolist() == [1, 1, 1, 3, 3, 3]
    # Ten times 0.1 sums to less than 1; the largest uniform must not fall off the end.
    tenths = torch.tensor([0.1] * 10 + [0.0], dtype=torch.float64)
    assert draw(tenths[None], uniforms[-1:]).item() == 9


# The generators of MDPs


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.data())
def test_garnet_has_the_branching_asked_for(num_states, num_actions, data):
    branching = data.draw(st.integers(1, num_states))
    mdp = garnet(num_states, num_actions, branching, 0.9, seed=data.draw(st.integers(0, 10**6)))
    assert ((mdp.P > 0).sum(-1) == branching).all()


def test_garnet_is_decided_by_its_seed():
    one, again, other = garnet(4, 2, 2, 0.9, 1), garnet(4, 2, 2, 0.9, 1), garnet(4, 2, 2, 0.9, 2)
    assert torch.equal(one.P, again.P)
    assert torch.equal(one.r, again.r)
    assert not torch.equal(one.r, other.r)


def test_chain_worked_by_hand():
    right, left = torch.tensor([[0.0, 1.0]] * 4), torch.tensor([[1.0, 0.0]] * 4)
    mdp = chain(4, gamma=0.9, slip=0.0)
    # Right: the near reward once, then the far one from step 3 on. Left: the near reward for ever.
    assert abs(evaluate_policy(mdp, right).eta - (0.1 + 0.9**3 / (1 - 0.9))) < 1e-12
    assert abs(evaluate_policy(mdp, left).eta - 0.1 / (1 - 0.9)) < 1e-12
    slippery = chain(4, gamma=0.9, slip=0.25)
    assert slippery.P[1, 1].tolist() == [0.25, 0, 0.75, 0]
    assert slippery.P[3, 1].tolist() == [0, 0, 0.25, 0.75]


def test_grid_world_worked_by_hand():
    mdp = grid_world(2, 3, gamma=0.9, slip=0.0)
    shortest = torch.zeros(6, 4, dtype=torch.float64)
    shortest[[0, 1], 1] = 1  # right along the upper row
    shortest[2:, 2] = 1  # then down; in the goal any action will do
    shortest[3:5] = 0
    shortest[3:5, 0] = 1
    # Three steps to the goal, which pays and sends back: a reward at steps 3, 7, 11, ...
    assert abs(evaluate_policy(mdp, shortest).eta - 0.9**3 / (1 - 0.9**4)) < 1e-12
    # Walls: up and left in the first corner go nowhere.
    assert mdp.P[0, 0, 0] == mdp.P[0, 3, 0] == 1
    slippery = grid_world(2, 3, gamma=0.9, slip=0.4)
    # From the upper middle, right: 0.6 plus a quarter of 0.4; up is the wall; the rest each a quarter of 0.4.
    torch.testing.assert_close(slippery.P[1, 1], torch.tensor([0.1, 0.1, 0.7, 0, 0.1, 0], dtype=torch.float64))


# What is refused

HALF = [[[0.5, 0.5]], [[0.5, 0.5]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": [[[0.5, 0.4]], [[0.5, 0.5]]]}, r"P has a row that sums to 0\.9, but probabilities must sum to 1"),
        ({"P": [[[1.5, -0.5]], [[0.5, 0.5]]]}, r"P holds a negative probability, -0\.5"),
        ({"P": [[[float("nan"), 0.5]], [[0.5, 0.5]]]}, "P holds a number that is not finite"),
        ({"P": [[0.5, 0.5], [0.5, 0.5]]}, r"P has shape \(2, 2\), but \[states, actions, states\] is needed"),
        ({"P": np.ones((2, 1, 3)) / 3}, r"P has shape \(2, 1, 3\), but \[states, actions, states\] is needed"),
        ({"P": np.ones((0, 1, 0))}, r"P has shape \(0, 1, 0\), but"),
        ({"r": [1.0, 2.0]}, r"r has shape \(2,\), but P needs \(2, 1\)"),
        ({"r": [[1.0], [float("inf")]]}, "r holds a number that is not finite"),
        ({"rho0": [1.0]}, r"rho0 has shape \(1,\), but P needs \(2,\)"),
        ({"rho0": [0.5, 0.6]}, r"rho0 has a row that sums to 1\.1"),
        ({"gamma": 1.0}, r"gamma is 1\.0, but must be at least 0 and below 1"),
        ({"gamma": -0.1}, r"gamma is -0\.1, but"),
        ({"gamma": float("nan")}, "gamma is nan, but"),
    ],
)
def test_an_impossible_mdp_is_refused_in_one_line(change, message):
    good = {"P": HALF, "r": [[0.0], [1.0]], "rho0": [0.5, 0.5], "gamma": 0.9}
    TabularMDP(**good)
    with pytest.raises(ValueError, match="^" + message) as refusal:
        TabularMDP(**good | change)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("pi", "message"),
    [
        ([[0.5, 0.5]], r"the policy has shape \(1, 2\), but this MDP needs \(2, 1\)"),
        ([[0.9], [1.0]], r"the policy has a row that sums to 0\.9"),
        ([[float("nan")], [1.0]], "the policy holds a number that is not finite"),
    ],
)
def test_a_table_that_is_no_policy_is_refused(pi, message):
    mdp = TabularMDP(HALF, [[0.0], [1.0]], [0.5, 0.5], 0.9)
    for call in (lambda: evaluate_policy(mdp, pi), lambda: simulate(mdp, pi, 2, 2, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="^" + message):
            call()


def test_generators_refuse_what_makes_no_mdp():
    for branching in (0, 4):
        with pytest.raises(ValueError, match=f"branching is {branching}, but must be between 1 and the 3 states"):
            garnet(3, 2, branching, 0.9, 0)
    with pytest.raises(ValueError, match="negative probability"):
        chain(4, 0.9, slip=1.5)


def test_rounding_in_a_row_is_tolerated_and_an_error_is_not():
    check_distributions("it", torch.tensor([0.1] * 10, dtype=torch.float64))
    with pytest.raises(ValueError, match="it has a row that sums to"):
        check_distributions("it", torch.tensor([0.5, 0.5 + 1e-8], dtype=torch.float64))


def test_a_table_that_is_no_policy_is_told_what_it_may_be():
    mdp = garnet(4, 3, 2, 0.9, 0)
    logits = torch.tensor([[1.0, -2.0, 0.5]] * 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="negative probability, -2; are these logits"):
        evaluate_policy(mdp, logits)
    with pytest.raises(ValueError, match=r"sums to .*; its columns do: it was normalized over the states"):
        evaluate_policy(mdp, logits.softmax(0))
    with pytest.raises(ValueError, match="not finite; exp of a logit above 709"):
        evaluate_policy(mdp, (1000 * logits).exp() / (1000 * logits).exp().sum(-1, keepdim=True))
    with pytest.raises(ValueError, match=r"must sum to 1$"):
        evaluate_policy(mdp, 1.1 * logits.softmax(-1))
