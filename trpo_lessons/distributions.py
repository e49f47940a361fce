"""Action distributions: what a policy returns for a batch of observations.

Reading order: first. Lesson 02.

A distribution holds its parameters for N states at once and answers four questions about them: which actions
(`sample`), how likely (`log_prob`), how far from another distribution (`kl`), how random (`entropy`). A fifth answer,
`fisher_metric`, is what makes natural-gradient methods cheap: the Fisher matrix *in the distribution's own parameters*
is known in closed form, so only the network between theta and those parameters needs automatic differentiation (see
`kl`).

KL(old || new) is always `old.kl(new)`, in that order: the expectation is taken under the old policy, which is the one
that the data came from (equations 9 to 13).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor


class Distribution(ABC):
    """A batch of N independent distributions over actions.

    `parameters` are those of the distributions (logits, or mean and log sigma); the policy's are called theta.
    """

    @property
    @abstractmethod
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors [N, ...] that describe the distributions; the network's outputs."""

    @abstractmethod
    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        """The random numbers that one sample of each distribution needs, [N, noise_dim]: uniform or standard normal."""

    @abstractmethod
    def sample_from(self, noise: Tensor) -> Tensor:
        """The actions that `noise` selects: a deterministic function, so equal noise means common random numbers."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Log probability (discrete) or log density (continuous) of each action, [N], in nats."""

    @abstractmethod
    def kl(self, other: Self) -> Tensor:
        """KL(self || other) in each state, [N], in nats. For the trust region, self is the old policy."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy (discrete) or differential entropy (continuous) in each state, [N], in nats."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The most likely action in each state, shaped like a sample."""

    @abstractmethod
    def fisher_metric(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Multiply a direction in the space of `parameters` by the Fisher matrix in these parameters, state by state.

        This is the Hessian of KL(self || other) in other's parameters, taken at other = self (appendix C of the paper).
        `tangents` has the shapes of `parameters`, and so has the result.
        """

    def with_parameters(self, *parameters: Tensor) -> Self:
        """Distributions of the same kind with other `parameters`, of any number of states."""
        return type(self)(*parameters)

    def __len__(self) -> int:
        return len(self.parameters[0])

    def __getitem__(self, index: slice) -> Self:
        return self.with_parameters(*(parameter[index] for parameter in self.parameters))

    def detach(self) -> Self:
        """The same distributions as constants, through which no gradient flows."""
        return self.with_parameters(*(parameter.detach() for parameter in self.parameters))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One action for each state, drawn with `generator`: [N] for Categorical, [N, action_dim] otherwise."""
        return self.sample_from(self.noise(generator))


DistributionT = TypeVar("DistributionT", bound=Distribution)


def concatenated(
    parts: Sequence[DistributionT], how: Callable[[tuple[Tensor, ...]], Tensor] = torch.cat
) -> DistributionT:
    """The distributions of several batches as those of one; `torch.stack` gives them an axis of their own."""
    return parts[0].with_parameters(*map(how, zip(*(part.parameters for part in parts), strict=True)))


class Categorical(Distribution):
    """One of A actions, from unnormalised log probabilities `logits` [N, A]. Actions are integers [N]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.log_probs = torch.log_softmax(logits, dim=-1)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self.logits.shape[:-1], 1)
        return torch.rand(shape, generator=generator, dtype=self.logits.dtype, device=self.logits.device)

    def sample_from(self, noise: Tensor) -> Tensor:
        # Inverse CDF. Rounding can leave the last cumulative sum below 1 and the noise above it, which would pick an
        # action that may be all but impossible. Dividing by that sum makes it 1, which no noise reaches.
        cumulative = self.log_probs.exp().cumsum(-1)
        return (noise >= cumulative / cumulative[..., -1:]).sum(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def kl(self, other: Self) -> Tensor:
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def fisher_metric(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # diag(p) - p p^T, the covariance matrix of the one-hot action.
        (u,) = tangents
        probs = self.log_probs.exp()
        return (probs * (u - (probs * u).sum(-1, keepdim=True)),)


class FactoredCategorical(Distribution):
    """Several independent categorical choices at once, such as a joystick's two axes and its button.

    `logits` [N, sum(sizes)] holds the factors side by side; actions are integers [N, len(sizes)]. Independence makes
    log probabilities, KL and entropy sums over the factors, and the Fisher metric block-diagonal.

    Raises ValueError when logits have not as many columns as the factors need.
    """

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        if logits.shape[-1] != sum(sizes):
            raise ValueError(
                f"logits have {logits.shape[-1]} columns, but the factors {tuple(sizes)} need {sum(sizes)}"
            )
        self.logits = logits
        self.sizes = list(sizes)
        self.factors = [Categorical(part) for part in torch.split(logits, self.sizes, dim=-1)]

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        shape = (*self.logits.shape[:-1], len(self.sizes))
        return torch.rand(shape, generator=generator, dtype=self.logits.dtype, device=self.logits.device)

    def sample_from(self, noise: Tensor) -> Tensor:
        columns = torch.split(noise, 1, dim=-1)
        return torch.stack([f.sample_from(u) for f, u in zip(self.factors, columns, strict=True)], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self._total([f.log_prob(a) for f, a in zip(self.factors, actions.unbind(-1), strict=True)])

    def kl(self, other: Self) -> Tensor:
        return self._total([f.kl(g) for f, g in zip(self.factors, other.factors, strict=True)])

    def entropy(self) -> Tensor:
        return self._total([f.entropy() for f in self.factors])

    def mode(self) -> Tensor:
        return torch.stack([f.mode() for f in self.factors], dim=-1)

    def fisher_metric(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        parts = torch.split(tangents[0], self.sizes, dim=-1)
        return (torch.cat([f.fisher_metric((u,))[0] for f, u in zip(self.factors, parts, strict=True)], dim=-1),)

    def with_parameters(self, *parameters: Tensor) -> Self:
        (logits,) = parameters
        return type(self)(logits, self.sizes)

    @staticmethod
    def _total(terms: list[Tensor]) -> Tensor:
        return torch.stack(terms).sum(0)


class DiagGaussian(Distribution):
    """Independent normal actions with `mean` [N, D] and `log_std` [D] or [N, D]. Actions are real numbers [N, D]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean
        self.log_std = log_std.expand_as(mean)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.mean, self.log_std)

    def noise(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)

    def sample_from(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, actions: Tensor) -> Tensor:
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(self, other: Self) -> Tensor:
        # With r the ratio of the variances: KL = 1/2 sum[r - 1 - log r + (difference of means)^2 / other's variance].
        # expm1 keeps the digits of r - 1 - log r, which is of second order where the policies nearly agree.
        log_ratio = 2 * (self.log_std - other.log_std)
        shift = (self.mean - other.mean) * torch.exp(-other.log_std)
        return 0.5 * (torch.expm1(log_ratio) - log_ratio + shift.square()).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def mode(self) -> Tensor:
        return self.mean

    def fisher_metric(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Per dimension: 1/sigma^2 for the mean, 2 for log sigma, no coupling.
        d_mean, d_log_std = tangents
        return (d_mean * torch.exp(-2 * self.log_std), 2 * d_log_std)
