"""Pictures are learned from in float32, on a processor and on a GPU: how far that is from float64."""

from __future__ import annotations

import pytest
import torch
from helpers import convolutional_policy, normal, seeded
from torch import Tensor

from trpo_lessons.kl import fisher_vector_product, mean_kl
from trpo_lessons.policies import FactoredHead
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.training.running import device as devices
from trpo_lessons.trpo import TrustRegion, natural_direction, trpo_update

POLICY = convolutional_policy((4, 52, 40), FactoredHead((3, 3, 2)))  # the paper's
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")),
]


def problem(dtype: torch.dtype, device: str) -> tuple[Tensor, Batch]:
    """Theta away from its tame beginning, and a batch of noisy pictures; the same numbers in every dtype."""
    theta = POLICY.initial_theta(seeded(0)).double() + 0.02 * normal(1, POLICY.num_parameters)
    pictures = torch.randint(0, 256, (96, 4, 52, 40), generator=seeded(2)).double() / 255
    policy_there = POLICY(theta, pictures)
    actions = policy_there.sample(seeded(3))
    log_q = policy_there.log_prob(actions)
    columns = (pictures.to(dtype), actions, normal(4, 96).to(dtype), log_q.to(dtype))
    return theta.to(device, dtype), Batch(*(column.to(device) for column in columns))


def relative_error(found: Tensor, exact: Tensor) -> float:
    return ((found.double().cpu() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_of_an_update_is_that_of_float64(device: str) -> None:
    devices.prepare(device)
    results = []
    for dtype, where in ((torch.float64, "cpu"), (torch.float32, device)):
        theta, batch = problem(dtype, where)
        gradient = surrogate_gradient(POLICY, theta, batch)
        product = fisher_vector_product(POLICY, theta, batch)
        direction = natural_direction(product, gradient, TrustRegion(damping=0.1))
        results.append((gradient, product(gradient), direction.x))
    gradient_error, product_error, direction_error = map(relative_error, results[1], results[0])
    # Rounding to float32 is 6e-8, and a thousand terms add up. TF32 would round what goes in to 5e-4.
    assert max(gradient_error, product_error) < 1e-5
    assert direction_error < 1e-2  # ten iterations of conjugate gradient amplify it


@pytest.mark.parametrize("device", DEVICES)
def test_the_kl_bound_holds_in_float64(device: str) -> None:
    theta, batch = problem(torch.float32, device)
    new, report = trpo_update(Problem(POLICY, batch), theta, TrustRegion(delta=0.01))
    assert report.accepted
    exact, its_batch = problem(torch.float64, "cpu")
    kl = mean_kl(POLICY, exact, exact + (new - theta).double().cpu(), its_batch)
    assert kl == pytest.approx(report.mean_kl, rel=1e-3)
    assert 0.001 < kl < 0.0101


def test_tf32_would_be_noticed() -> None:
    """What the GPU's default does to its inputs, done by hand: ten bits are left of what goes into a product."""
    theta, batch = problem(torch.float32, "cpu")
    exact = surrogate_gradient(POLICY, *problem(torch.float64, "cpu"))
    rounded = (theta.view(torch.int32) & ~0x1FFF).view(torch.float32)
    gradient = surrogate_gradient(POLICY, rounded, batch)
    assert relative_error(gradient, exact) > 3e-4
