"""The surrogate objective estimated from samples, and its gradient.

Reading order: after `policies`. Lesson 02, equations 14 and 15.

A surrogate is a function `(policy, theta, batch) -> terms [N]`, one term L_n(theta) for each state in the batch; the
objective is their mean. It asks the policy about this theta and the states of the batch, and about nothing else.
`sampled_surrogate` is equation 15; the vine brings equations 16 and 17 in the same shape, and any of them can be handed
to `trpo.trpo_update`.

Every mean in this package is a sum and a count: summed over chunks that fit in memory, divided once (`mean_over`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution, concatenated
from trpo_lessons.policies import Policy


class Samples(Protocol):
    """States with whatever else is known about them; slicing picks some of them, as with a list."""

    @property
    def obs(self) -> Tensor:
        """Observations [N, *obs_shape]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> Self: ...


SamplesT = TypeVar("SamplesT", bound=Samples)
Surrogate = Callable[[Policy, Tensor, Any], Tensor]


@dataclass(frozen=True)
class Columns:
    """What is known about N samples: fields of length N, sliced side by side."""

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"a batch needs the same number of samples in every field, got {lengths}")

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index: slice) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: str) -> Self:
        """The same samples on another device."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class States(Columns):
    """States alone, which is all that KL and Fisher matrix ask for: `obs` [N, *obs_shape], already normalised.

    What else is known about the states, a subclass adds as further tensors with leading axis N.
    """

    obs: Tensor


@dataclass(frozen=True)
class StatesAnd(Columns):
    """States of any kind, side by side with what a subclass adds in a field of length N."""

    states: Samples

    @property
    def obs(self) -> Tensor:
        """Observations [N, *obs_shape]."""
        return self.states.obs


@dataclass(frozen=True)
class Batch(States):
    """What one iteration of sampling leaves behind: N state-action pairs drawn from q.

    obs         [N, *obs_shape]  observations, already normalised
    actions     [N] or [N, action_dim]
    advantages  [N]  estimates of A(s, a), or of Q(s, a): the difference is a constant in theta
    log_q       [N]  log probability (density) with which the action was drawn, in nats
    """

    actions: Tensor
    advantages: Tensor
    log_q: Tensor


def chunks(samples: SamplesT, chunk_size: int | None) -> Iterator[SamplesT]:
    """Consecutive slices of at most `chunk_size` states; everything at once when it is None."""
    step = chunk_size or max(len(samples), 1)
    for start in range(0, len(samples), step):
        yield samples[start : start + step]


def mean_over(samples: SamplesT, sum_of: Callable[[SamplesT], Tensor], chunk_size: int | None = None) -> Tensor:
    """The mean over all states of a quantity whose *sum* over a chunk is `sum_of(chunk)`; float64.

    Raises ValueError when there are no samples.
    """
    if len(samples) == 0:
        raise ValueError("the batch is empty")
    total = torch.stack([sum_of(chunk).double() for chunk in chunks(samples, chunk_size)]).sum(0)
    return total / len(samples)


def importance_ratios(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """pi_theta(a|s) / q(a|s) for every sample, [N]. At theta_old, with q = pi_old, every ratio is 1."""
    return torch.exp(policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q)


def sampled_surrogate(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """The terms of equation 15: importance ratio times advantage, [N]."""
    return importance_ratios(policy, theta, batch) * batch.advantages


def surrogate_value(
    policy: Policy,
    theta: Tensor,
    batch: SamplesT,
    surrogate: Surrogate = sampled_surrogate,
    chunk_size: int | None = None,
) -> float:
    """The objective: the mean of the surrogate's terms over the batch."""
    with torch.no_grad():
        return mean_over(batch, lambda chunk: surrogate(policy, theta, chunk).double().sum(), chunk_size).item()


def surrogate_gradient(
    policy: Policy,
    theta: Tensor,
    batch: SamplesT,
    surrogate: Surrogate = sampled_surrogate,
    chunk_size: int | None = None,
) -> Tensor:
    """The gradient of `surrogate_value` in theta, [num_parameters], of theta's dtype."""
    return value_and_gradient(policy, theta, batch, surrogate, chunk_size)[1]


def value_and_gradient(
    policy: Policy,
    theta: Tensor,
    batch: SamplesT,
    surrogate: Surrogate = sampled_surrogate,
    chunk_size: int | None = None,
) -> tuple[float, Tensor, Distribution]:
    """`surrogate_value`, its gradient, and what the policy says in the states of the batch: all from one pass."""
    answers = []

    def sums(chunk: SamplesT) -> Tensor:
        at = theta.detach().requires_grad_()
        answer = policy(at, chunk.obs)
        answers.append(answer.detach())
        value = surrogate(asked_already(answer), at, chunk).double().sum()
        (gradient,) = torch.autograd.grad(value, at)
        return torch.cat([value.detach()[None], gradient.double()])

    means = mean_over(batch, sums, chunk_size)
    return means[0].item(), means[1:].to(theta.dtype), concatenated(answers)


def asked_already(answer: Distribution) -> Policy:
    """A policy that has been asked, for a surrogate that would ask it the same again."""
    return cast(Policy, lambda _theta, _obs: answer)
