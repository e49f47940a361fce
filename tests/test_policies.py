"""Policies as functions of theta: parameter counts, nothing hidden, and ordinary PyTorch networks as twins."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from helpers import KINDS, convolutional_policy, normal, seeded, small_policy
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from trpo_lessons.distributions import Categorical, DiagGaussian, FactoredCategorical
from trpo_lessons.policies import (
    CategoricalHead,
    FactoredHead,
    FlatNetwork,
    GaussianHead,
    linear_policy,
    mlp,
    mlp_policy,
)

JOYSTICK = FactoredHead((3, 3, 2))


# ---- the paper's counts


def test_the_atari_policy_has_the_33500_parameters_of_the_paper() -> None:
    policy = convolutional_policy((4, 52, 40), JOYSTICK)
    assert policy.num_parameters == 33_500
    assert policy.num_parameters == 1040 + 4112 + 28180 + 168
    actions = policy(policy.initial_theta(seeded(0)), normal(1, 2, 4, 52, 40, dtype=torch.float32)).sample(seeded(2))
    assert actions.shape == (2, 3)


def test_the_cart_pole_policy_has_the_six_parameters_of_the_paper() -> None:
    policy = linear_policy(4, GaussianHead(1))
    assert policy.num_parameters == 6
    # Four weights, a bias and a log standard deviation, in this order.
    theta, obs = normal(0, 6), normal(1, 7, 4)
    distribution = policy(theta, obs)
    torch.testing.assert_close(distribution.mode().squeeze(-1), obs @ theta[:4] + theta[4], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(distribution.parameters[1], theta[5].expand(7, 1), rtol=0, atol=0)


@pytest.mark.parametrize("hidden", [(), (5,), (64, 64)])
def test_an_mlp_counts_its_weights_its_biases_and_its_log_stds(hidden: tuple[int, ...]) -> None:
    widths = [11, *hidden, 3]
    layers = sum(fan_in * fan_out + fan_out for fan_in, fan_out in itertools.pairwise(widths))
    assert mlp_policy(11, GaussianHead(3), hidden).num_parameters == layers + 3
    assert mlp_policy(11, CategoricalHead(3), hidden).num_parameters == layers


# ---- the same as ordinary networks


def ordinary_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_an_mlp_policy_computes_what_an_ordinary_network_computes() -> None:
    network, obs = ordinary_mlp(), normal(0, 9, 4)
    weights = parameters_to_vector(network.parameters()).detach()
    outputs = network(obs).detach()
    categorical = mlp_policy(4, CategoricalHead(3), (6, 5))(weights, obs)
    assert isinstance(categorical, Categorical)
    torch.testing.assert_close(categorical.logits, outputs, rtol=1e-12, atol=1e-12)
    factored = mlp_policy(4, FactoredHead((2, 1)), (6, 5))(weights, obs)
    assert isinstance(factored, FactoredCategorical)
    torch.testing.assert_close(factored.logits, outputs, rtol=1e-12, atol=1e-12)
    log_std = normal(1, 3)
    gaussian = mlp_policy(4, GaussianHead(3), (6, 5))(torch.cat([weights, log_std]), obs)
    assert isinstance(gaussian, DiagGaussian)
    torch.testing.assert_close(gaussian.mean, outputs, rtol=1e-12, atol=1e-12)
    assert torch.equal(gaussian.log_std, log_std.expand(9, 3))


def test_the_convolutional_policy_computes_what_an_ordinary_network_computes() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 16, 4, 2), nn.Tanh(), nn.Conv2d(16, 16, 4, 2), nn.Tanh(),
        nn.Flatten(), nn.Linear(16 * 2 * 1, 7), nn.Tanh(), nn.Linear(7, 8),
    ).double()  # fmt: skip
    images = normal(0, 3, 2, 14, 10)
    policy = convolutional_policy((2, 14, 10), JOYSTICK, hidden=7)
    distribution = policy(parameters_to_vector(network.parameters()).detach(), images)
    torch.testing.assert_close(distribution.parameters[0], network(images).detach(), rtol=1e-12, atol=1e-12)


def test_gradients_in_theta_are_those_of_an_ordinary_network() -> None:
    network, obs, actions = ordinary_mlp(), normal(0, 9, 4), torch.arange(9) % 3
    torch.distributions.Categorical(logits=network(obs)).log_prob(actions).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters()])
    theta = parameters_to_vector(network.parameters()).detach().requires_grad_()
    mlp_policy(4, CategoricalHead(3), (6, 5))(theta, obs).log_prob(actions).sum().backward()
    torch.testing.assert_close(theta.grad, expected, rtol=1e-11, atol=1e-12)


# ---- theta is all there is


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_is_a_function_of_theta_and_obs_and_changes_neither(kind: str) -> None:
    policy, obs_shape = small_policy(kind)
    theta, obs = normal(0, policy.num_parameters), normal(1, 6, *obs_shape)
    theta_before, obs_before = theta.clone(), obs.clone()
    first = policy(theta, obs).parameters
    other = policy(theta + 1, obs).parameters
    again = policy(theta, obs).parameters
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(theta, theta_before)
    assert torch.equal(obs, obs_before)


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_of_theta_matters(kind: str) -> None:
    policy, obs_shape = small_policy(kind)
    theta = normal(0, policy.num_parameters).requires_grad_()
    distribution = policy(theta, normal(1, 6, *obs_shape))
    weights = [normal(2 + i, *p.shape) for i, p in enumerate(distribution.parameters)]
    sum((p * w).sum() for p, w in zip(distribution.parameters, weights, strict=True)).backward()
    assert (theta.grad != 0).all()


def test_log_std_is_the_end_of_theta_and_the_same_in_every_state() -> None:
    policy, obs = mlp_policy(4, GaussianHead(2), (5,)), normal(1, 6, 4)
    theta = normal(0, policy.num_parameters)
    theta[-2:] = torch.tensor([-1.0, 0.5])
    before = policy(theta, obs)
    assert torch.equal(before.parameters[1], torch.tensor([-1.0, 0.5]).double().expand(6, 2))
    wider = torch.cat([theta[:-2], theta[-2:] + 1])
    after = policy(wider, obs)
    assert torch.equal(after.parameters[0], before.parameters[0])
    torch.testing.assert_close(after.entropy(), before.entropy() + 2)


@pytest.mark.parametrize("length", [5, 7, 0])
def test_a_theta_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"theta has shape \({length},\), but this policy needs \(6,\)"):
        linear_policy(4, GaussianHead(1))(torch.zeros(length), torch.zeros(1, 4))


def test_a_theta_that_is_not_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"theta has shape \(6, 1\)"):
        linear_policy(4, GaussianHead(1))(torch.zeros(6, 1), torch.zeros(1, 4))


def test_images_too_small_for_the_convolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="images of 10 x 9 are too small"):
        convolutional_policy((1, 10, 9), JOYSTICK)
    assert convolutional_policy((1, 10, 10), JOYSTICK).num_parameters == (16 * 16 + 16) + 4112 + (16 * 20 + 20) + 168


# ---- the first theta


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_theta_is_finite_seeded_and_nearly_the_same_policy_in_every_state(kind: str) -> None:
    policy, obs_shape = small_policy(kind)
    state = torch.get_rng_state()
    theta = policy.initial_theta(seeded(3))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert theta.shape == (policy.num_parameters,)
    assert theta.dtype == torch.float32
    assert theta.isfinite().all()
    assert torch.equal(theta, policy.initial_theta(seeded(3)))
    assert not torch.equal(theta, policy.initial_theta(seeded(4)))
    distribution = policy(theta, normal(1, 500, *obs_shape, dtype=torch.float32))
    assert distribution.parameters[0].abs().max() < 0.1
    assert distribution.parameters[0].std() > 0


def test_the_first_weights_are_orthogonal_and_the_first_biases_zero() -> None:
    network = FlatNetwork(mlp([6, 4, 3]))
    first, bias, last, last_bias = network.initial_theta(0.01, seeded(0)).split([24, 4, 12, 3])
    first, last = first.view(4, 6), last.view(3, 4)
    torch.testing.assert_close(first @ first.T, 2 * torch.eye(4), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(3), rtol=1e-5, atol=1e-9)
    assert not bias.any()
    assert not last_bias.any()


def test_a_gaussian_starts_with_the_log_std_it_was_given() -> None:
    theta = mlp_policy(4, GaussianHead(2, initial_log_std=-0.7)).initial_theta(seeded(0))
    assert torch.equal(theta[-2:], torch.full((2,), -0.7))


def test_a_policy_owns_no_numbers() -> None:
    # A copy taken before and after use is the same function: the only numbers are those in theta.
    policy, obs = mlp_policy(4, CategoricalHead(3), (5,)), normal(1, 6, 4)
    theta = normal(0, policy.num_parameters)
    fresh = copy.deepcopy(policy)
    policy(normal(5, policy.num_parameters), obs)
    assert torch.equal(fresh(theta, obs).parameters[0], policy(theta, obs).parameters[0])
    assert not any(isinstance(value, Tensor) for value in [*vars(policy).values(), *vars(policy._network).values()])


def test_a_policy_can_be_differentiated_twice_and_mapped_over_thetas() -> None:
    policy, obs = mlp_policy(4, CategoricalHead(3), (5,)), normal(1, 6, 4)
    thetas = normal(0, 3, policy.num_parameters)

    def entropy(theta: Tensor) -> Tensor:
        return policy(theta, obs).entropy().mean()

    mapped = torch.func.vmap(entropy)(thetas)
    torch.testing.assert_close(mapped, torch.stack([entropy(theta) for theta in thetas]))
    hessian = torch.func.hessian(entropy)(thetas[0])
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-10, atol=1e-12)
