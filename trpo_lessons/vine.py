"""Vine sampling: try several actions in the same state, and see what each of them leads to.

Reading order: after `rollout_set`. Lesson 07, section 5.2, the right half of figure 1.

    trunk         trajectories of the policy, as in the single-path scheme
    rollout set   N states s_n on the trunk, every step equally likely to be chosen
    branches      from each of these states K first actions a_nk, and after each a short rollout of the policy

What a branch earns, discounted, is Q(s_n, a_nk). The K branches of one state differ by their first action only: after
it they share their random numbers, the policy's and the environment's, so that in the differences of their Q-values,
and only these matter, most of the noise cancels.

A rollout of limited length T estimates Q_T, not Q, and states chosen uniformly from the trunk have the distribution w
of its steps, not the discounted rho. So with more states equation 16 converges to sum_s w(s) sum_a pi(a|s) Q_T(s, a);
equation 17 needs more branches, too: at finite K it is biased in general.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.envs import RestorableVectorEnv, State
from trpo_lessons.envs.obs_statistics import unit_of
from trpo_lessons.envs.rollouts import Copied, Rollouts, SavesChosen, new_generators, not_run, rows_of, run_rollouts
from trpo_lessons.policies import Policy
from trpo_lessons.problem import Problem, Refused
from trpo_lessons.rollout_set import (
    FirstActions,
    RolloutSet,
    all_actions_surrogate,
    self_normalised_surrogate,
    surrogate_for,
)
from trpo_lessons.single_path import Actor, PathRecord, for_environment, sample_single_path
from trpo_lessons.surrogate import Surrogate

__all__ = ["Branching", "Vine", "all_actions_surrogate", "sample_vine", "self_normalised_surrogate"]


@dataclass(frozen=True)
class Branching:
    """What grows on a trunk.

    num_states      N, how many of its states have branches
    first_actions   q, one of those in `rollout_set`, with its K
    rollout_length  the most steps of a branch
    gamma           discount per step
    value           normalised obs [M, obs_dim] -> [M], the estimated value of a state, added where a branch was cut: at
                    its limit and at the time limit of its episode, not at a termination. None adds nothing, as in the
                    paper
    common_random_numbers  False gives every branch random numbers of its own, also to its environment
    """

    num_states: int
    first_actions: FirstActions
    rollout_length: int
    gamma: float
    value: Callable[[Tensor], Tensor] | None = None
    common_random_numbers: bool = True


@dataclass(frozen=True)
class Vine:
    """A trunk of T steps in E environments side by side, and K branches in each of N of its states.

    trunk         the trajectories, [T, E, ...], a SinglePath (of games one with frames); all their states enter the KL
                  and the Fisher matrix
    chosen        [N, 2]  (t, e) of the states with branches, in the order of time
    saved         the environment's states there, arrays [N, ...]: restore them to follow a branch again, or to draw it
    rollout_set   [N, K]  their observations, first actions, Q-values (float64) and log q
    surrogate     equation 16 or 17, as the first actions need it
    lengths       [N, K]  steps in each branch
    branch_steps  simulator steps taken for the branches
    seconds       wall time spent "acting" and "simulating", trunk and branches
    """

    trunk: PathRecord
    chosen: Tensor
    saved: State
    rollout_set: RolloutSet
    surrogate: Surrogate
    lengths: Tensor
    branch_steps: int
    seconds: dict[str, float]

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken, trunk and branches."""
        return self.trunk.num_steps + self.branch_steps

    @property
    def flaw(self) -> str:
        """Why these samples must not be learned from, or "" when all numbers are finite."""
        return self.trunk.flaw or ("" if self.rollout_set.q_values.isfinite().all() else "a Q-value is not finite")

    @property
    def facts(self) -> dict[str, float]:
        """What the branches cost and found, for a log.

        branch_steps         as above
        mean_branch_length   steps of a branch; below the limit where episodes end before it
        mean_q               mean Q-value
        q_spread             standard deviation of the Q-values within a state: what the update learns from
        """
        q_values = self.rollout_set.q_values
        return {
            "branch_steps": self.branch_steps,
            "mean_branch_length": self.lengths.double().mean().item(),
            "mean_q": q_values.mean().item(),
            "q_spread": math.sqrt(q_values.var(1).mean().item()),
        }

    def problem(self, policy: Policy, _advantages: Tensor | None = None, chunk_size: int | None = None) -> Problem:
        """What an update is to improve: the Q-values of the branches, held back in all states of the trunk.

        Advantages of the trunk are not used; they are asked for so that paths and vines are used alike. Raises Refused
        when the Q-values are too large to compute with.
        """
        scaled = replace(self.rollout_set, q_values=scaled_differences(self.rollout_set.q_values).float())
        return Problem(policy, scaled, self.surrogate, self.trunk.states, chunk_size)


def scaled_differences(q_values: Tensor) -> Tensor:
    """Q-values [N, K] minus their mean in each state, in units of the root mean square of what is left.

    Neither changes TRPO's update. In equations 16 and 17 the weights of a state's actions add up to 1 at every theta:
    a constant in a state's Q-values is a constant in the objective. And a factor in the objective is a factor in its
    gradient, which the scale of the step takes back, and in every gain that the line search looks at. What changes is
    rounding: large and nearly equal numbers would leave little of their differences in float32.

    Raises Refused for numbers whose squares are too large.
    """
    if not q_values.square().sum().isfinite():
        raise Refused("the returns are too large to compute with")
    differences = q_values - q_values.mean(1, keepdim=True)
    return differences / unit_of(differences.square().mean().sqrt(), q_values.abs().mean())


def sample_vine(
    trunk_env: RestorableVectorEnv,
    branch_env: RestorableVectorEnv,
    pi_old: Actor,
    raw_obs: Tensor,
    trunk_steps: int,
    branching: Branching,
    generator: torch.Generator,
) -> Vine:
    """Follow the policy for `trunk_steps` steps in every copy of `trunk_env`, and branch in some of its states.

    raw_obs: [E, obs_dim] from which the trunk goes on, as in `sample_single_path`. The paper's trunks begin with new
        episodes: for that, give what `trunk_env.reset()` returns.
    branch_env: the same task, of any width; its own state is lost. The numbers do not depend on its width, except
        that a matrix product may round a row differently in another place.

    Raises ValueError for settings out of range. A trunk with a number that is not finite gets no branches, and its
    Q-values are NaN; see `Vine.flaw`.
    """
    num_states, length = branching.num_states, branching.rollout_length
    if not 1 <= num_states <= trunk_steps * trunk_env.num_envs or length < 1:
        raise ValueError(
            f"{num_states} states with rollouts of {length} steps are asked for; there must be at least one of each, "
            f"and no more states than the trunk's {trunk_steps} steps of {trunk_env.num_envs} environments"
        )
    chosen = choose_states(trunk_steps, trunk_env.num_envs, num_states, generator)
    env = SavesChosen(trunk_env, chosen)
    trunk = sample_single_path(env, pi_old, raw_obs, trunk_steps, generator)
    obs, saved = trunk.obs[tuple(chosen.T)], env.saved()
    with torch.no_grad():
        there = pi_old.answer(obs)
        actions, log_q = branching.first_actions(there, generator)
    num_branches = actions.shape[1]
    starts = rows_of(saved, np.repeat(np.arange(num_states), num_branches))
    if not branching.common_random_numbers:
        starts["generators"] = new_generators(num_states * num_branches, generator)
    draws = 1 if branching.common_random_numbers else num_branches
    noise = branch_noise(there, length, num_branches, draws, generator)
    if trunk.flaw:
        rollouts = not_run(num_states * num_branches, raw_obs.shape[1:])
    else:
        rollouts = roll_out(branch_env, pi_old, starts, actions.flatten(0, 1), noise, branching.gamma)
    q_values = worth(rollouts, pi_old, branching).view_as(log_q)
    return Vine(
        trunk=trunk,
        chosen=chosen,
        saved=saved,
        rollout_set=RolloutSet(obs, actions, q_values, log_q),
        surrogate=surrogate_for(branching.first_actions),
        lengths=rollouts.lengths.view_as(log_q),
        branch_steps=rollouts.num_steps,
        seconds={phase: spent + rollouts.seconds[phase] for phase, spent in trunk.seconds.items()},
    )


def roll_out(
    env: Copied,
    pi_old: Callable[[Tensor], Distribution],
    starts: State,
    first_actions: Tensor,
    noise: Tensor,
    gamma: float,
) -> Rollouts:
    """M rollouts of at most L steps, each with its own first action and random numbers.

    pi_old         raw observations [E, obs_dim] -> the policy there
    starts         saved states, arrays [M, ...]; or [N, ...]: in each begin M / N rollouts, one state after the other
    first_actions  [M] or [M, action_dim]
    noise          [L, M, noise_dim]  what `Distribution.sample_from` makes of it are the later actions; row 0 is unused
    """

    # Of the E copies of the environment, which rollout each follows, and how many steps of it are done: [E] each.
    def act(raw_obs: np.ndarray, rollout: np.ndarray, age: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            actions = pi_old(torch.from_numpy(raw_obs)).sample_from(noise[age, rollout])
        actions[age == 0] = first_actions[rollout[age == 0]]
        return for_environment(actions, env.single_action_space)

    return run_rollouts(env, act, starts, noise.shape[:2], gamma)


def choose_states(num_steps: int, num_envs: int, num_states: int, generator: torch.Generator) -> Tensor:
    """(t, e) of `num_states` different steps of a trunk, [N, 2], every step equally likely, in the order of time.

    They are chosen before the trunk is followed, so that only their states have to be saved.
    """
    steps = torch.randperm(num_steps * num_envs, generator=generator)[:num_states].sort().values
    return torch.stack((steps // num_envs, steps % num_envs), dim=1)


def branch_noise(
    pi_old: Distribution, length: int, num_branches: int, draws: int, generator: torch.Generator
) -> Tensor:
    """The policy's random numbers in K rollouts of `length` steps from each of N states, [length, N * K, noise_dim].

    draws: how many of the K are independent: 1 (common random numbers: all K branches of a state use the same) or K.
    """
    rows = [torch.stack([pi_old.noise(generator) for _ in range(draws)], dim=1) for _ in range(length)]
    return torch.stack(rows).expand(-1, -1, num_branches, -1).flatten(1, 2)


def worth(rollouts: Rollouts, pi_old: Actor, branching: Branching) -> Tensor:
    """Q-values [M]: what every rollout earned, discounted, and what `branching.value` expects where it was cut."""
    if branching.value is None:
        return rollouts.returns
    future = branching.value(pi_old.statistics.normalise(rollouts.last_obs)).double()
    return rollouts.returns + branching.gamma ** rollouts.lengths.double() * torch.where(
        rollouts.terminated, 0.0, future
    )
