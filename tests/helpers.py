"""Small builders that the tests of the core share."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from torch import Tensor

from trpo_lessons.distributions import Categorical, DiagGaussian, Distribution, FactoredCategorical
from trpo_lessons.policies import (
    FLATTEN,
    CategoricalHead,
    FactoredHead,
    GaussianHead,
    Head,
    Policy,
    convolution,
    convolutional,
    linear,
    linear_policy,
    mlp_policy,
)
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch

# The same examples on every machine and every day: a course's test run is green or red for a reason, not by luck.
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)

HEADS: dict[str, Head] = {
    "categorical": CategoricalHead(3),
    "factored": FactoredHead((3, 2)),
    "gaussian": GaussianHead(2),
}
NETWORKS = ("linear", "mlp", "convolutional")
KINDS = [f"{network}-{head}" for network in NETWORKS for head in HEADS]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers; drawn in float64, so that every dtype sees the same ones."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def doubles(values: object) -> Tensor:
    """A float64 tensor of Python numbers (a detour over float32 would round them)."""
    return torch.tensor(values, dtype=torch.float64)


def convolutional_policy(obs_shape: Sequence[int], head: Head, hidden: int = 20) -> Policy:
    """The paper's Atari policy for images `obs_shape` (channels, height, width)."""
    return Policy(convolutional(obs_shape, [hidden], head.num_inputs), head)


def small_policy(kind: str) -> tuple[Policy, tuple[int, ...]]:
    """A policy of fewer than a hundred parameters, and the shape of one observation."""
    network, head_name = kind.split("-")
    head = HEADS[head_name]
    if network == "linear":
        return linear_policy(4, head), (4,)
    if network == "mlp":
        return mlp_policy(4, head, hidden=(5, 4)), (4,)
    return Policy([convolution(2, 3, size=3, stride=2), FLATTEN, linear(6, head.num_inputs)], head), (2, 5, 4)


@dataclass(frozen=True)
class Case(Problem):
    """A problem with a theta away from its tame initial one, which collected the batch itself (log_q is its own)."""

    batch: Batch
    theta: Tensor = field(kw_only=True)


def small_problem(kind: str, num_samples: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    policy, obs_shape = small_policy(kind)
    theta = 0.5 * normal(seed, policy.num_parameters, dtype=dtype)
    obs = normal(seed + 1, num_samples, *obs_shape, dtype=dtype)
    distribution = policy(theta, obs)
    actions = distribution.sample(seeded(seed + 2))
    advantages = normal(seed + 3, num_samples, dtype=dtype)
    return Case(policy, Batch(obs, actions, advantages, distribution.log_prob(actions)), theta=theta)


def weighted_actions(distribution: Distribution) -> Iterator[tuple[Tensor, Tensor]]:
    """Actions [N, ...] with weights [N] under which sums over actions are exact expectations.

    All actions with their probabilities; for a Gaussian the nodes of Gauss and Hermite's quadrature, which is exact for
    polynomials in the action up to degree 11.
    """
    if isinstance(distribution, DiagGaussian):
        num_states, action_dim = distribution.mean.shape
        nodes, weights = np.polynomial.hermite_e.hermegauss(6)
        for picks in itertools.product(range(6), repeat=action_dim):
            z = torch.tensor(nodes[list(picks)]).expand(num_states, -1)
            weight = math.prod(weights[list(picks)] / math.sqrt(2 * math.pi))
            yield distribution.sample_from(z), doubles([weight] * num_states)
        return
    num_states = distribution.parameters[0].shape[0]
    for action in all_actions(distribution):
        actions = action.expand(num_states, *action.shape)
        yield actions, distribution.log_prob(actions).exp()


def all_actions(distribution: Distribution) -> list[Tensor]:
    """Every action of a discrete distribution."""
    if isinstance(distribution, Categorical):
        return list(torch.arange(distribution.logits.shape[-1]))
    assert isinstance(distribution, FactoredCategorical)
    return [torch.tensor(choice) for choice in itertools.product(*map(range, distribution.sizes))]


def mutant(module: ModuleType, *changes: tuple[str, str], **names: Any) -> ModuleType:
    """The module with a mistake put into its source, so that a test can prove that it would notice.

    `changes` are (what stands there, what the mistake makes of it), each found exactly once; `names` replaces imports.
    """
    source = inspect.getsource(module)
    for old, new in changes:
        assert source.count(old) == 1, f"{module.__name__} no longer has {old!r} once: adapt the mutant"
        source = source.replace(old, new)
    copy = ModuleType(module.__name__)
    exec(compile(source, f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    copy.__dict__.update(names)
    return copy
