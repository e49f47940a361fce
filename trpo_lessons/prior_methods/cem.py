"""The cross-entropy method with noise that fades. Szita and Lőrincz (2006); section 8.1 of the paper.

Draw thetas from a Gaussian with independent parameters, keep those that earned most, fit the Gaussian to them, and add
a little to its variance, less every time:

    mean      <- mean of the elite
    variance  <- variance of the elite + max(extra - extra t / generations, 0)

Without the last term the variance falls by what selection takes away, also in directions that returns have not told
anything about yet, and the search may end where it happens to be. The extra noise is a variance, as in their equation,
not a standard deviation; Szita and Lőrincz have 5 and 50 generations, for 22 features of Tetris and an initial variance
of 100.
"""

from __future__ import annotations

from torch import Tensor

from trpo_lessons.prior_methods.gaussian_search import ExtraVariance, GaussianSearch, elite


def cem(
    mean: Tensor, std: float, population: int, elite_share: float, extra_noise: float, noise_generations: int
) -> GaussianSearch:
    """The cross-entropy method from N(mean, std²) in every parameter; `extra_noise` is a variance."""
    noise = fading(extra_noise, noise_generations)
    return GaussianSearch(mean, std, population, elite(elite_share), extra_variance=noise)


def fading(extra_noise: float, generations: int) -> ExtraVariance:
    """`extra_noise` after the first fit, less after each of the next, and nothing after `generations` of them."""
    return lambda t: max(extra_noise - extra_noise * t / generations, 0.0)
