"""What an update is to improve, and where it is held back: the two together, as a function of theta.

Reading order: after `kl`. Lesson 05, equations 14 to 17.

    maximise    L(theta)                        the surrogate: equation 15, 16 or 17, over a batch
    subject to  mean KL(old || new) <= delta    equation 13, over states

A `Problem` answers for any theta: the surrogate's value and gradient, the KL from the old policy, products with the
Fisher matrix. How many states are processed at once, and on which device, is said here. Every update is a way to use
these answers; `trpo` is the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution, concatenated
from trpo_lessons.kl import MatrixVectorProduct, distributions_in, fisher_vector_product
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import (
    Samples,
    StatesAnd,
    Surrogate,
    mean_over,
    sampled_surrogate,
    surrogate_gradient,
    surrogate_value,
    value_and_gradient,
)

Fisher = Callable[..., MatrixVectorProduct]
"""(policy, theta, states, chunk_size) -> v -> A v: one of those in `kl`."""


class Refused(Exception):  # noqa: N818 (nothing went wrong: it is an answer)
    """Theta must stay as it is; the message says why. `facts` are fields of `trpo.UpdateReport` found on the way."""

    def __init__(self, reason: str, **facts: Any) -> None:
        super().__init__(reason)
        self.facts = facts


class Start(NamedTuple):
    """What an update knows at theta_old.

    surrogate  L(theta_old)
    gradient   [num_parameters]  g, of L
    old        what the old policy says in the problem's states: it is asked once, not for every candidate
    facts      what a report says of this, while theta has not moved
    """

    surrogate: float
    gradient: Tensor
    old: Distribution
    facts: dict[str, float]


@dataclass(frozen=True)
class Candidate:
    """A theta that may become the new one, with what decides about it; KL from the old policy, in nats."""

    theta: Tensor
    surrogate: float
    mean_kl: float
    max_kl: float


@dataclass(frozen=True)
class Problem:
    """A surrogate to improve and states to be held back in.

    policy      whose theta it is
    batch       the samples that the surrogate averages over
    surrogate   (pi, batch) -> terms [N]
    trunk       the states that KL and Fisher matrix average over; None where they are those of the batch. The vine has
                more states (its trunk, section 5.2) than states with several actions (its batch)
    chunk_size  how many states are processed at once; None for all
    """

    policy: Policy
    batch: Samples
    surrogate: Surrogate = sampled_surrogate
    trunk: Samples | None = None
    chunk_size: int | None = None

    @property
    def states(self) -> Samples:
        """The states that KL and Fisher matrix average over."""
        return self.batch if self.trunk is None else self.trunk

    def to(self, device: str) -> Problem:
        """The same problem on another device."""
        return replace(self, batch=self.batch.to(device), trunk=None if self.trunk is None else self.trunk.to(device))

    def value(self, theta: Tensor) -> float:
        """L(theta): the mean of the surrogate's terms, in the units of the batch's advantages or Q-values."""
        return surrogate_value(self.policy, theta, self.batch, self.surrogate, self.chunk_size)

    def gradient(self, theta: Tensor) -> Tensor:
        """The gradient of L at theta, [num_parameters]."""
        return surrogate_gradient(self.policy, theta, self.batch, self.surrogate, self.chunk_size)

    def fisher_product(
        self, theta: Tensor, fisher: Fisher = fisher_vector_product, stride: int = 1
    ) -> MatrixVectorProduct:
        """v -> A v at theta, over every `stride`-th state: for this alone a tenth is enough (section 6)."""
        return fisher(self.policy, theta, self.states[::stride], self.chunk_size)

    def start(self, theta: Tensor) -> Start:
        """What an update has to know at theta_old, [num_parameters]; one pass where the states are those of the batch.

        Raises Refused where there is no direction to go: something is not finite, or the gradient is zero.
        """
        # The pass for the gradient has asked the policy in every state already: keep what it said, chunk by chunk.
        answers = []

        def remembering(at: Tensor, obs: Tensor) -> Distribution:
            answer = self.policy(at, obs)
            answers.append(answer.detach())
            return answer

        value, gradient = value_and_gradient(remembering, theta, self.batch, self.surrogate, self.chunk_size)
        norm = gradient.norm().item()
        if self.trunk is not None:
            answers = [distributions_in(self.policy, theta, self.trunk, self.chunk_size)]
        facts = {"surrogate_before": value, "surrogate_after": value, "gradient_norm": norm}
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Refused("the surrogate or its gradient is not finite", **facts)
        if norm == 0:
            raise Refused("the gradient is zero: nothing to improve", **facts)
        return Start(value, gradient, concatenated(answers), facts)

    def candidate(self, theta: Tensor, old: Distribution) -> Candidate:
        """What decides about `theta`, given `Start.old`; from one pass where the states are those of the batch."""
        largest = []

        def sums(chunk: StatesAnd) -> Tensor:
            pi = self.policy(theta, chunk.obs)
            kl = chunk.also.kl(pi)
            largest.append(kl.max())
            terms = self.surrogate(pi, chunk.states) if self.trunk is None else torch.zeros_like(kl)
            return torch.stack([terms.double().sum(), kl.double().sum()])

        with torch.no_grad():
            value, mean_kl = mean_over(StatesAnd(self.states, old), sums, self.chunk_size).tolist()
        if self.trunk is not None:
            value = self.value(theta)
        return Candidate(theta, value, mean_kl, torch.stack(largest).max().item())
