"""Search with a Gaussian over theta: draw a population, weigh it by its returns, fit the Gaussian to it again.

Three methods differ by one function, the weights of a population with returns J [P]:

    elite(share)        1 for the best, 0 for the others: the cross-entropy method
    exponential(beta)   exp(beta (J - max J)): episodic reward-weighted regression, Peters and Schaal (2007)
    bounded_kl(epsilon) exp(J / eta), with the eta at which the weights are epsilon nats away from uniform ones:
                        episodic relative entropy policy search, Peters et al. (2010), Deisenroth et al. (2013)

Episodic, because a return belongs to a whole theta: states, actions and time steps do not appear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from torch import Tensor

Weights = Callable[[Tensor], Tensor]
"""Returns [P] -> weights [P], 0 or more, which add up to 1."""
ExtraVariance = Callable[[int], float]
"""How many times the Gaussian was fitted before -> what is added to the variance of every parameter."""


class Search(Protocol):
    """Ask and tell: a distribution over theta that draws populations and learns from their returns."""

    @property
    def mean(self) -> Tensor:
        """The middle of the distribution, [n] float64: the theta to keep when the search is over."""

    @property
    def spread(self) -> float:
        """The root mean square of the standard deviations of all parameters."""

    @property
    def num_parents(self) -> int:
        """How many of a population count, the best ones."""

    def ask(self, generator: torch.Generator) -> Tensor:
        """The next population, [P, n] float64, drawn with `generator`."""

    def tell(self, returns: Tensor) -> None:
        """Learn from what the population of the last `ask` has earned, [P]; more is better.

        Raises ValueError where a return is not finite, or when nobody has asked.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything that the next `ask` depends on, the generator aside."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state()`. Raises KeyError or ValueError for the state of another search."""


class GaussianSearch:
    """A Gaussian over theta [n] with independent parameters, or with a full covariance matrix where n is small.

    weigh: makes weights of returns; see above.
    extra_variance: added to every variance after a fit, so that the Gaussian does not collapse before its time.
    """

    def __init__(
        self,
        mean: Tensor,
        std: float,
        population: int,
        weigh: Weights,
        *,
        full: bool = False,
        extra_variance: ExtraVariance = lambda _: 0.0,
    ) -> None:
        self.mean = mean.double()
        variance = torch.full_like(self.mean, std**2)
        self.covariance = variance.diag() if full else variance  # [n, n] or, of independent parameters, [n]
        self.fits = 0
        self._population, self._weigh, self._extra_variance = population, weigh, extra_variance
        self._asked: Tensor | None = None

    @property
    def spread(self) -> float:
        """See `Search`."""
        return self._variances.mean().sqrt().item()

    @property
    def num_parents(self) -> int:
        """See `Search`: how many weights of P distinct returns are above 0."""
        return int((self._weigh(torch.arange(self._population, dtype=torch.float64)) > 0).sum())

    @property
    def _variances(self) -> Tensor:
        return self.covariance.diagonal() if self._full else self.covariance

    def ask(self, generator: torch.Generator) -> Tensor:
        """See `Search`."""
        noise = torch.randn(self._population, len(self.mean), generator=generator, dtype=torch.float64)
        self._asked = self.mean + (noise @ root(self.covariance).T if self._full else noise * self.covariance.sqrt())
        return self._asked

    @property
    def _full(self) -> bool:
        return self.covariance.ndim == 2

    def tell(self, returns: Tensor) -> None:
        """See `Search`."""
        thetas, self._asked = checked(self._asked, returns), None
        self.mean, self.covariance = weighted_gaussian(thetas, self._weigh(returns.double()), full=self._full)
        self._variances.add_(self._extra_variance(self.fits))
        self.fits += 1

    def state(self) -> dict[str, Tensor]:
        """See `Search`."""
        return {"mean": self.mean, "covariance": self.covariance, "fits": torch.tensor(self.fits)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Search`."""
        mean, covariance, fits = (tensors[name] for name in ("mean", "covariance", "fits"))
        if mean.shape != self.mean.shape or covariance.shape != self.covariance.shape:
            told, own = (
                f"{tuple(m.shape)} and {tuple(c.shape)}" for m, c in ((mean, covariance), (self.mean, self.covariance))
            )
            raise ValueError(f"the search has a mean and a covariance of shapes {told}, not {own}")
        self.mean, self.covariance, self.fits = mean.clone(), covariance.clone(), int(fits)


def weighted_gaussian(thetas: Tensor, weights: Tensor, *, full: bool = False) -> tuple[Tensor, Tensor]:
    """The Gaussian under which a weighted population [P, n] is most likely: mean [n], and variances [n] or, `full`, the
    covariance matrix [n, n]. Weights [P] add up to 1.

    maximises sum over p of weights[p] log N(thetas[p]; mean, covariance).
    """
    mean = weights @ thetas
    away = thetas - mean
    return mean, (away.T * weights) @ away if full else weights @ away.square()


def root(covariance: Tensor) -> Tensor:
    """A matrix [n, n] whose product with its transpose is `covariance`, which may be singular."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    scaled: Tensor = vectors * eigenvalues.clamp(min=0.0).sqrt()
    return scaled


def checked(asked: Tensor | None, returns: Tensor) -> Tensor:
    """The population that was asked for. Raises ValueError unless `returns` are finite and fit it."""
    if asked is None:
        raise ValueError("tell comes after ask: there is no population that these returns belong to")
    if returns.shape != asked.shape[:1]:
        raise ValueError(f"there are {len(asked)} thetas, but returns of shape {list(returns.shape)}")
    if not returns.isfinite().all():
        raise ValueError("a return is not finite")
    return asked


def elite(share: float) -> Weights:
    """Equal weights for the best `share` of the population, at least one, and none for the others."""

    def weigh(returns: Tensor) -> Tensor:
        count = elite_size(len(returns), share)
        weights = torch.zeros_like(returns)
        weights[returns.argsort(descending=True, stable=True)[:count]] = 1.0 / count
        return weights

    return weigh


def elite_size(population: int, share: float) -> int:
    """How many are the best `share`: to the nearest, at least one."""
    return max(1, math.floor(population * share + 0.5))


def exponential(beta: float) -> Weights:
    """Weights in proportion to exp(beta J); `beta` in one over the units of returns."""
    return lambda returns: torch.softmax(beta * returns, dim=0)


def bounded_kl(epsilon: float) -> Weights:
    """Weights w that maximise the mean return sum w J, at most `epsilon` nats away from uniform ones: KL(w || 1/P)."""

    def weigh(returns: Tensor) -> Tensor:
        return torch.softmax(returns / reps_temperature(returns, epsilon), dim=0)

    return weigh


LEAST_TEMPERATURE = 1e-9  # in units of the range of the returns


def reps_temperature(returns: Tensor, epsilon: float) -> float:
    """The eta that minimises the dual, eta epsilon + max J + eta log mean exp((J - max J) / eta), over eta > 0.

    It is convex in eta, and its derivative is epsilon - KL(weights || 1/P), so that at its minimum the bound is met.
    Where the bound allows that all weight goes to the best, there is no minimum: eta is then as small as can be
    computed with. Where all returns are equal, every eta gives the same weights.
    """
    below = (returns - returns.max()).double()  # subtracted, so that no exponential overflows
    unit = -below.min().item()
    if unit == 0.0:
        return 1.0

    def dual(log_eta: float) -> float:
        eta = math.exp(log_eta)
        return eta * (epsilon + (torch.logsumexp(below / unit / eta, 0) - math.log(len(returns))).item())

    # As b = 1 / eta grows, the KL of the weights grows by b times the variance of the returns under the weights. In
    # units of the range that is at most 1/4, so that the KL is at most b²/8, and the minimum lies below this:
    most = max(1.0, math.sqrt(1.0 / (8.0 * epsilon))) * 2.0
    found = minimize_scalar(
        dual, bounds=(math.log(LEAST_TEMPERATURE), math.log(most)), method="bounded", options={"xatol": 1e-10}
    )
    return unit * math.exp(found.x)
