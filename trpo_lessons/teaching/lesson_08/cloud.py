"""A cloud of parameters over the true landscape of a policy with two of them: what its generations do.

The landscape is exact: eta of a softmax policy in a small MDP, by a linear solve for every theta. So are the returns
of a cloud's thetas; the only chance is in where they lie, and that is drawn by NumPy from a seed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trpo_lessons import mdp
from trpo_lessons.mdp import TabularMDP
from trpo_lessons.prior_methods.gaussian_search import Weights, bounded_kl, elite, exponential, weighted_gaussian

Floats = npt.NDArray[np.float64]
NUM_STATES, NUM_ACTIONS, GAMMA, SEED = 8, 3, 0.95, 1
REACH, GRID = 6.0, 61  # the picture's half width, and points along an edge
POPULATION, GENERATIONS = 60, 12
START = (3.0, -2.0)


def features(num_parameters: int) -> Floats:
    """phi(s, a) of a softmax policy whose logits are phi . theta, [S, A, num_parameters]."""
    return np.random.default_rng(SEED).normal(size=(NUM_STATES, NUM_ACTIONS, num_parameters))


@functools.cache
def problem() -> TabularMDP:
    """A random MDP. With two parameters its landscape has a narrow ridge and, lower, a broad hill."""
    return mdp.garnet(NUM_STATES, NUM_ACTIONS, 2, GAMMA, seed=SEED)


def returns_of(thetas: Floats, phi: Floats) -> Floats:
    """eta of the softmax policy at each of `thetas` [P, n], exactly: [P]."""
    world = problem()
    logits = np.einsum("sak,pk->psa", phi, thetas)
    pi = np.exp(logits - logits.max(-1, keepdims=True))
    pi /= pi.sum(-1, keepdims=True)
    moves = np.einsum("psa,sat->pst", pi, world.P.numpy())
    rewards = np.einsum("psa,sa->ps", pi, world.r.numpy())
    V = np.linalg.solve(np.eye(NUM_STATES) - world.gamma * moves, rewards[..., None])[..., 0]
    found: Floats = V @ world.rho0.numpy()
    return found


@functools.cache
def landscape() -> tuple[Floats, Floats]:
    """Places along an edge [GRID], and eta [GRID, GRID]: a row for each second parameter."""
    edge = np.linspace(-REACH, REACH, GRID)
    thetas = np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2)
    return edge, returns_of(thetas, features(2)).reshape(GRID, GRID)


@dataclass(frozen=True)
class Generation:
    """One generation: the Gaussian it was drawn from, the thetas, what they earn and weigh, the Gaussian fitted to it.

    Means and standard deviations [2]; thetas [P, 2]; returns and weights [P].
    """

    mean: Floats
    std: Floats
    thetas: Floats
    returns: Floats
    weights: Floats
    next_mean: Floats
    next_std: Floats

    @property
    def counting(self) -> float:
        """Kish's effective number of thetas: 1 / sum of w squared."""
        return float(1 / np.square(self.weights).sum())

    @property
    def kl(self) -> float:
        """KL of the weights from uniform ones, in nats."""
        w = self.weights[self.weights > 0]
        return float((w * np.log(w * len(self.weights))).sum())

    @property
    def mean_return(self) -> float:
        """What the mean of the next Gaussian earns."""
        return float(returns_of(self.next_mean[None], features(2))[0])

    @property
    def spread(self) -> float:
        """Root mean square of the standard deviations of the next Gaussian."""
        return float(np.sqrt(np.square(self.next_std).mean()))


METHODS = ("CEM", "RWR", "REPS")


def weights_by(method: str, strength: float) -> Weights:
    """CEM with an elite share, RWR with a temperature in units of returns, REPS with a bound in nats."""
    return {
        "CEM": elite,
        "RWR": lambda temperature: exponential(1 / temperature),
        "REPS": bounded_kl,
    }[method](strength)


@functools.lru_cache(maxsize=256)
def generations(method: str, strength: float, spread: float, seed: int = 8) -> tuple[Generation, ...]:
    """All generations from N(START, spread^2), the same random numbers for all methods."""
    weigh = weights_by(method, strength)
    noise = np.random.default_rng(seed).normal(size=(GENERATIONS, POPULATION, 2))
    mean, std, found = np.array(START), np.full(2, spread), []
    for each in noise:
        thetas = mean + std * each
        returns = returns_of(thetas, features(2))
        weights = weigh(torch.from_numpy(returns))
        next_mean, variance = (x.numpy() for x in weighted_gaussian(torch.from_numpy(thetas), weights))
        next_std = np.sqrt(variance)
        found.append(Generation(mean, std, thetas, returns, weights.numpy(), next_mean, next_std))
        mean, std = next_mean, next_std
    return tuple(found)
