"""CMA-ES: the covariance matrix adaptation evolution strategy. Hansen and Ostermeier (1996); section 8.1 of the paper.

A Gaussian over theta as in the cross-entropy method, with three differences. Its mean moves towards the better half of
the population, better ones counting more. Its covariance is not that of the chosen few alone, but changes slowly: along
the path that the mean has taken (rank one), and by the spread of the chosen around the *old* mean (rank mu). And one
step size for all directions grows while successive moves agree, and shrinks while they cancel. Only the order of
returns counts.

The algorithm is pycma's, by its first author; the random numbers are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cma  # type: ignore[import-untyped]
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.prior_methods.gaussian_search import checked

# A covariance matrix of n parameters has n²/2 numbers, and a population tells little about them. By pycma's learning
# rates, 1/(c_1 + c_mu), populations of 32 take 29 generations to learn those of 20 parameters, 609 of 100, 2388 of 200.
# Above this number a run ends before the matrix is learned; 100 variances alone take 17.
FULL_UP_TO = 100


class CMA:
    """CMA-ES from N(mean, std²) in every parameter, as a `gaussian_search.Search`.

    full: whether to learn the whole covariance matrix, or its diagonal alone; None decides by FULL_UP_TO.

    pycma keeps its state in some hundred attributes, which can be pickled but not stored otherwise. What is stored here
    is what it was told, and the seeds of what it asked: `load_state` lets a new one go through the same again.
    """

    def __init__(self, mean: Tensor, std: float, population: int, full: bool | None = None) -> None:
        self._start = mean.double().numpy()
        self._std, self._population = std, population
        self.full = len(mean) <= FULL_UP_TO if full is None else full
        self._begin()

    def _begin(self) -> None:
        options = {
            "popsize": self._population,
            "CMA_diagonal": not self.full,
            "CMA_eigenmethod": _eigenvectors,
            "randn": self._randn,
            "seed": np.nan,  # leaves NumPy's global generator alone
            "verbose": -10,  # says nothing, and reads no file that others could steer the search by
            "verb_log": 0,
        }
        self._strategy = cma.CMAEvolutionStrategy(self._start, self._std, options)
        self._asked: Tensor | None = None
        self._seeds: list[int] = []  # of every population
        self._told: list[Tensor] = []  # what it has earned; NaN where nobody has told

    def _randn(self, *shape: int) -> NDArray[np.float64]:
        return self._numbers.standard_normal(shape)

    @property
    def mean(self) -> Tensor:
        """See `Search`."""
        return torch.tensor(self._strategy.mean, dtype=torch.float64)

    @property
    def spread(self) -> float:
        """See `Search`."""
        return float(np.sqrt(np.square(self._strategy.stds).mean()))

    @property
    def num_parents(self) -> int:
        """See `Search`."""
        return int(self._strategy.sp.weights.mu)

    def ask(self, generator: torch.Generator) -> Tensor:
        """See `Search`."""
        return self._ask(int(torch.randint(2**62, (), generator=generator)))

    def _ask(self, seed: int) -> Tensor:
        self._fill_in()
        self._seeds.append(seed)
        self._numbers = np.random.default_rng(seed)
        self._thetas = self._strategy.ask()
        self._asked = torch.tensor(np.array(self._thetas), dtype=torch.float64)
        return self._asked

    def _fill_in(self) -> None:
        """Remember that nobody has told what the last population has earned."""
        if len(self._told) < len(self._seeds):
            self._told.append(torch.full((self._population,), torch.nan, dtype=torch.float64))

    def tell(self, returns: Tensor) -> None:
        """See `Search`."""
        checked(self._asked, returns)
        self._asked = None
        self._told.append(returns.double())
        self._strategy.tell(self._thetas, (-returns.double()).tolist())  # it minimises

    def state(self) -> dict[str, Tensor]:
        """See `Search`: the seeds [G] of all populations, and what each has earned, [G, P]."""
        self._fill_in()
        told = torch.stack(self._told) if self._told else torch.empty(0, self._population, dtype=torch.float64)
        return {"seeds": torch.tensor(self._seeds, dtype=torch.int64), "told": told}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Search`. It takes as long as all fits have taken."""
        seeds, told = tensors["seeds"], tensors["told"]
        if told.shape != (len(seeds), self._population):
            raise ValueError(f"returns of {list(told.shape)} are not those of populations of {self._population}")
        self._begin()
        for seed, returns in zip(seeds.tolist(), told, strict=True):
            self._ask(seed)
            if returns.isfinite().all():
                self.tell(returns)


def _eigenvectors(matrix: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By torch, whose number of threads is the run's: NumPy's has as many as the machine, and rounds accordingly."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    return values.numpy(), vectors.numpy()
