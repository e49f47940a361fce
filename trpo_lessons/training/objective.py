"""What one update maximises and where it is held back: the one thing in which the two sampling schemes differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trpo_lessons.advantages import unit_of
from trpo_lessons.single_path import SinglePath
from trpo_lessons.surrogate import States, Surrogate, sampled_surrogate
from trpo_lessons.training.game_path import GamePath, GameStates
from trpo_lessons.vine import RolloutSet, Vine


@dataclass(frozen=True)
class Objective:
    """The arguments of `trpo_update` that depend on how states and actions were sampled.

    samples    what the surrogate averages over
    surrogate  equation 15, 16 or 17
    states     what KL and Fisher matrix average over
    """

    samples: States | GameStates
    surrogate: Surrogate
    states: States | GameStates

    def to(self, device: str) -> Objective:
        """The same on another device."""
        samples = self.samples.to(device)
        return Objective(samples, self.surrogate, samples if self.states is self.samples else self.states.to(device))


def path_objective(path: SinglePath | GamePath, advantages: Tensor) -> Objective:
    """Single path: every step of the path, with its advantage [T, E], is a sample and a state. Equation 15."""
    batch = path.batch(advantages)
    return Objective(batch, sampled_surrogate, states=batch)


def vine_objective(vine: Vine, surrogate: Surrogate) -> Objective:
    """Vine: the rollout set is what is maximised, all states of the trunk are what the step is held back on."""
    found = vine.rollout_set
    scaled = RolloutSet(found.obs, found.actions, scaled_differences(found.q_values).float(), found.log_q)
    return Objective(scaled, surrogate, states=vine.states)


def scaled_differences(q_values: Tensor) -> Tensor:
    """Q-values [N, K] minus their mean in each state, in units of the root mean square of what is left.

    Neither changes the update. The weights of a state's actions add up to 1 in equations 16 and 17, whatever theta is:
    a constant in a state's Q-values is a constant in the objective. And a factor in the objective is a factor in its
    gradient, which the scale of the step takes back, and in every gain that the line search looks at. What changes is
    rounding: large and nearly equal numbers would leave little of their differences in float32.
    """
    differences = q_values - q_values.mean(1, keepdim=True)
    return differences / unit_of(differences.square().mean().sqrt(), q_values.abs().mean())


def branch_facts(vine: Vine) -> dict[str, float]:
    """What the branches of an iteration cost and found.

    branch_steps         simulator steps taken for the branches, those of copies that idled included
    mean_branch_length   steps of a branch; below the limit where episodes end before it
    mean_q               mean Q-value
    q_spread             standard deviation of the Q-values within a state: what the update learns from
    """
    q_values = vine.rollout_set.q_values
    return {
        "branch_steps": vine.branch_steps,
        "mean_branch_length": vine.lengths.double().mean().item(),
        "mean_q": q_values.mean().item(),
        "q_spread": math.sqrt(q_values.var(1).mean().item()),
    }
