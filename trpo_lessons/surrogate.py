"""The surrogate objective estimated from samples, and its gradient.

Reading order: after `policies`. Lesson 02, equations 14 and 15.

A surrogate is a function `(pi, batch) -> terms [N]`, one term L_n for each state in the batch, and the objective is
their mean. `pi` is the answer of a policy: its distributions in the states of the batch. So whoever asks the policy
decides for which theta, how many states at a time, and what else the same answer is good for. `sampled_surrogate` is
equation 15; the vine brings equations 16 and 17 in the same shape.

Every mean in this package is a sum and a count: summed over chunks that fit in memory, divided once (`mean_over`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution


class Rows(Protocol):
    """Something of a length, of which a slice, or a pick by an index tensor, is something of the same kind."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor) -> Self: ...


class Samples(Rows, Protocol):
    """States with whatever else is known about them."""

    @property
    def obs(self) -> Tensor:
        """Observations [N, *obs_shape]."""

    def to(self, device: str) -> Self: ...


RowsT = TypeVar("RowsT", bound=Rows)
Answer = Callable[[Tensor, Tensor], Any]
"""theta [num_parameters], obs [N, *obs_shape] -> what a surrogate is computed from: a `Policy`, most often."""
Surrogate = Callable[[Any, Any], Tensor]
"""An answer in the states of a batch, the batch -> terms [N]."""


@dataclass(frozen=True)
class Columns:
    """What is known about N samples: fields of length N, sliced and picked from side by side.

    Raises ValueError when the lengths differ.
    """

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"a batch needs the same number of samples in every field, got {lengths}")

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index: slice | Tensor) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: str) -> Self:
        """The same samples on another device."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class States(Columns):
    """States alone, which is all that KL and Fisher matrix ask for: `obs` [N, *obs_shape], already normalised.

    Normalised: by the running mean and deviation of all observations so far (`envs.obs_statistics`), not by the policy.

    What else is known about the states, a subclass adds as further tensors with leading axis N.
    """

    obs: Tensor


@dataclass(frozen=True)
class StatesAnd(Columns):
    """States of any kind, side by side with something else of their length."""

    states: Samples
    also: Any

    @property
    def obs(self) -> Tensor:
        """Observations [N, *obs_shape]."""
        return self.states.obs


@dataclass(frozen=True)
class Batch(States):
    """What one iteration of sampling leaves behind: N state-action pairs drawn from q.

    obs         [N, *obs_shape]  observations, already normalised
    actions     [N] or [N, action_dim]
    advantages  [N]  estimates of A(s, a), or of Q(s, a): in expectation over q the difference is a constant in theta,
                     since the importance ratios of a state average to 1
    log_q       [N]  log probability (density) with which the action was drawn, in nats
    """

    actions: Tensor
    advantages: Tensor
    log_q: Tensor


def chunks(rows: RowsT, chunk_size: int | None) -> Iterator[RowsT]:
    """Consecutive slices of at most `chunk_size` states; everything at once when it is None.

    Raises ValueError when there are no states.
    """
    if len(rows) == 0:
        raise ValueError("the batch is empty")
    step = chunk_size or len(rows)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def mean_over(rows: RowsT, sum_of: Callable[[RowsT], Tensor], chunk_size: int | None = None) -> Tensor:
    """The mean over all states of a quantity whose *sum* over a chunk is `sum_of(chunk)`; float64.

    Raises ValueError when there are no samples.
    """
    return torch.stack([sum_of(chunk).double() for chunk in chunks(rows, chunk_size)]).sum(0) / len(rows)


def importance_ratios(pi: Distribution, batch: Batch) -> Tensor:
    """pi_theta(a|s) / q(a|s) for every sample, [N]. At theta_old, with q = pi_old, every ratio is 1."""
    return torch.exp(pi.log_prob(batch.actions) - batch.log_q)


def sampled_surrogate(pi: Distribution, batch: Batch) -> Tensor:
    """The terms of equation 15: importance ratio times advantage, [N].

    The equation has Q where this has the advantage A = Q - V: see `Batch`.
    """
    return importance_ratios(pi, batch) * batch.advantages


def surrogate_value(
    policy: Answer, theta: Tensor, batch: Any, surrogate: Surrogate = sampled_surrogate, chunk_size: int | None = None
) -> float:
    """The objective: the mean of the surrogate's terms over the batch.

    `policy` may be any `Answer`. `chunk_size` bounds how many states are processed at once (None: all); the mean is the
    same up to rounding. Raises ValueError for an empty batch; so do the two functions below.
    """
    with torch.no_grad():
        return mean_over(batch, lambda some: surrogate(policy(theta, some.obs), some).double().sum(), chunk_size).item()


def surrogate_gradient(
    policy: Answer, theta: Tensor, batch: Any, surrogate: Surrogate = sampled_surrogate, chunk_size: int | None = None
) -> Tensor:
    """The gradient of `surrogate_value` in theta, [num_parameters], of theta's dtype."""
    return value_and_gradient(policy, theta, batch, surrogate, chunk_size)[1]


def value_and_gradient(
    policy: Answer, theta: Tensor, batch: Any, surrogate: Surrogate = sampled_surrogate, chunk_size: int | None = None
) -> tuple[float, Tensor]:
    """`surrogate_value` and its gradient [num_parameters], from one pass."""

    def sums(chunk: Samples) -> Tensor:
        at = theta.detach().requires_grad_()
        value = surrogate(policy(at, chunk.obs), chunk).double().sum()
        (gradient,) = torch.autograd.grad(value, at)
        return torch.cat([value.detach()[None], gradient.double()])

    means = mean_over(batch, sums, chunk_size)
    return means[0].item(), means[1:].to(theta.dtype)
