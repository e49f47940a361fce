"""Vine sampling: try several actions in the same state, and see what each of them leads to.

Reading order: after `single_path`. Lesson 07, section 5.2, equations 16 and 17, the right half of figure 1.

    trunk         trajectories of the policy, as in the single-path scheme
    rollout set   N states s_n on the trunk, every step equally likely to be chosen
    branches      from each of these states K first actions a_nk, and after each a short rollout of the policy

What a branch earns, discounted, is Q(s_n, a_nk). The K branches of one state differ by their first action only: after
it they share their random numbers, the policy's and the environment's, so that in the differences of their Q-values,
and only these matter, most of the noise cancels.

A rollout of limited length T estimates Q_T, not Q, and states chosen uniformly from the trunk have the distribution w
of its steps, not the discounted rho. So the estimates converge to sum_s w(s) sum_a pi(a|s) Q_T(s, a).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.distributions import Categorical, Distribution, FactoredCategorical
from trpo_lessons.envs import RestorableVectorEnv, State
from trpo_lessons.envs.base import Floats
from trpo_lessons.envs.random_state import make_generators, pack_generators
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments, SinglePath, for_environment, sample_single_path
from trpo_lessons.surrogate import States

FirstActions = Callable[[Distribution, torch.Generator], tuple[Tensor, Tensor]]
"""q, as a function (pi_old in N states, generator) -> actions [N, K] or [N, K, action_dim], their log q [N, K]."""


# ---- the objective


@dataclass(frozen=True)
class RolloutSet(States):
    """N states with K actions in each, and what every action was found to be worth.

    obs       [N, *obs_shape]  observations, already normalised
    actions   [N, K] or [N, K, action_dim]
    q_values  [N, K]  estimates of Q(s, a); a constant may be added in each state, and no gradient below changes
    log_q     [N, K]  log probability (density) with which the action was drawn, in nats
    """

    actions: Tensor
    q_values: Tensor
    log_q: Tensor

    def log_prob(self, policy: Policy, theta: Tensor) -> Tensor:
        """log pi_theta(a_nk|s_n), [N, K]: one pass through the network serves all actions of a state."""
        return log_prob_of_each(policy(theta, self.obs), self.actions)


def log_prob_of_each(distribution: Distribution, actions: Tensor) -> Tensor:
    """The log probabilities [N, K] of K actions in each of N states, [N, K] or [N, K, action_dim]."""
    return torch.stack([distribution.log_prob(kth) for kth in actions.unbind(1)], dim=1)


def all_actions_surrogate(policy: Policy, theta: Tensor, batch: RolloutSet) -> Tensor:
    """The terms of equation 16, [N]: sum_k pi_theta(a_k|s_n) Q(s_n, a_k), for every possible action once.

    Raises ValueError when the probabilities of a state's actions do not add up to 1: then these are not all actions,
    and equation 17 is needed.
    """
    pi = batch.log_prob(policy, theta).exp()
    if ((pi.detach().sum(1) - 1).abs() > 1e-3).any():
        raise ValueError("equation 16 needs every action of a state exactly once; for drawn actions use equation 17")
    return (pi * batch.q_values).sum(1)


def self_normalised_surrogate(policy: Policy, theta: Tensor, batch: RolloutSet) -> Tensor:
    """The terms of equation 17, [N]: the mean of Q(s_n, a_nk) with the weights pi_theta(a_nk|s_n) / q(a_nk|s_n).

    The paper prints pi_old in the place of q, and means q = pi_old; for any other q that is inconsistent. Weights that
    are divided by their sum are a softmax of their logarithms. Its bias is of order 1/K: at theta_old, with q = pi_old,
    the expected gradient is (K - 1) / K times the true one, which the scale of the step makes up for.
    """
    weights = torch.softmax(batch.log_prob(policy, theta) - batch.log_q, dim=1)
    return (weights * batch.q_values).sum(1)


# ---- the first actions


def from_the_policy(num_branches: int) -> FirstActions:
    """q = pi_old, for continuous actions: `num_branches` independent draws."""

    def draw(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions = torch.stack([pi_old.sample(generator) for _ in range(num_branches)], dim=1)
        return actions, log_prob_of_each(pi_old, actions)

    return draw


def uniformly(num_branches: int) -> FirstActions:
    """q uniform, for discrete actions: `num_branches` independent draws. Explores better, says the paper, on Atari."""

    def draw(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions, log_q = every_action(pi_old, generator)
        num_states, num_actions = log_q.shape
        picks = torch.randint(num_actions, (num_states, num_branches), generator=generator)
        return actions[0][picks], log_q[:, :1].expand(-1, num_branches)

    return draw


def every_action(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Every discrete action once, for equation 16; log q is that of the uniform distribution.

    Raises ValueError for continuous actions.
    """
    if isinstance(pi_old, Categorical):
        sizes = [pi_old.logits.shape[-1]]
    elif isinstance(pi_old, FactoredCategorical):
        sizes = pi_old.sizes
    else:
        raise ValueError("continuous actions cannot be listed or drawn uniformly: draw them from the policy")
    actions = torch.cartesian_prod(*map(torch.arange, sizes))
    num_states = len(pi_old.parameters[0])
    log_q = torch.full((num_states, len(actions)), -math.log(len(actions)), dtype=pi_old.parameters[0].dtype)
    return actions.expand(num_states, *actions.shape), log_q


# ---- the rollouts


@dataclass(frozen=True)
class Rollouts:
    """What M rollouts found.

    returns     [M]  discounted sum of rewards to the end of the rollout, or of its episode if that comes first; float64
    lengths     [M]  steps taken, from 1 to the limit
    terminated  [M]  True where the episode is over for good; elsewhere it was cut, by the limit or by its time limit
    last_obs    [M, obs_dim]  raw observation that the last step led to, before any reset; float64
    num_steps   simulator steps, those of idle copies included
    seconds     wall time spent "acting" and "simulating"
    """

    returns: Tensor
    lengths: Tensor
    terminated: Tensor
    last_obs: Tensor
    num_steps: int
    seconds: dict[str, float]


def roll_out(
    env: RestorableVectorEnv,
    pi_old: Callable[[Tensor], Distribution],
    starts: State,
    first_actions: Tensor,
    noise: Tensor,
    gamma: float,
) -> Rollouts:
    """M rollouts of at most L steps, each from its own start, with its own first action and random numbers.

    pi_old         raw observations [E, obs_dim] -> the policy there
    starts         saved states, arrays [M, ...]
    first_actions  [M] or [M, action_dim]
    noise          [L, M, noise_dim]  what `Distribution.sample_from` makes of it are the later actions; row 0 is unused

    All copies of `env` work side by side, however many they are. When the rollout of one ends, it takes the next that
    waits: nobody simulates the episode that follows, and copies idle only when no rollout is left.
    """
    length, count, _ = noise.shape
    returns, lengths, is_over = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    copies = _Copies(env, starts, count)
    last_obs, num_steps = np.zeros((count, *copies.obs.shape[1:])), 0
    acting, begun = 0.0, time.perf_counter()
    while copies.busy.any():
        asked = time.perf_counter()
        rollout, age, busy = copies.rollout, copies.age, copies.busy
        with torch.no_grad():
            actions = pi_old(torch.from_numpy(copies.obs)).sample_from(noise[age, rollout])
        actions[age == 0] = first_actions[rollout[age == 0]]
        command = for_environment(actions, env.single_action_space)
        acting += time.perf_counter() - asked
        copies.obs, rewards, terminated, truncated, infos = env.step(command)
        num_steps += env.num_envs
        # What follows an observation that is not finite is not the policy's doing, so the rollout must not count.
        rewards = np.where(np.isfinite(copies.obs).all(1), rewards, np.nan)
        returns[rollout[busy]] += (gamma**age * rewards)[busy]
        age += 1
        ended = busy & (terminated | truncated | (age == length))
        if ended.any():
            lengths[rollout[ended]], is_over[rollout[ended]] = age[ended], terminated[ended]
            last_obs[rollout[ended]] = _before_reset(copies.obs, infos)[ended]
            copies.take_next(ended)
    seconds = {"acting": acting, "simulating": time.perf_counter() - begun - acting}
    returned, steps, over, last = (torch.from_numpy(array) for array in (returns, lengths, is_over, last_obs))
    return Rollouts(returned, steps, over, last, num_steps, seconds)


class _Copies:
    """Which of `count` rollouts each copy of the environment works on, how many steps it has done, and what it sees."""

    def __init__(self, env: RestorableVectorEnv, starts: State, count: int) -> None:
        self._env, self._starts, self._waiting = env, starts, np.arange(env.num_envs, count)
        self.rollout = np.arange(env.num_envs) % count
        self.busy = np.arange(env.num_envs) < count
        self.age = np.zeros(env.num_envs, dtype=np.int64)
        self.obs = env.restore_state(rows_of(starts, self.rollout))

    def take_next(self, ended: NDArray[np.bool_]) -> None:
        """Give the copies that are through, [E], the rollouts that wait."""
        self.age[ended], self.busy[ended] = 0, False
        which = np.flatnonzero(ended)[: len(self._waiting)]
        if len(which):
            self.rollout[which], self._waiting = np.split(self._waiting, [len(which)])
            self.busy[which] = True
            self.obs = self._env.restore_state(rows_of(self._starts, self.rollout[which]), which)


def rows_of(state: State, rows: NDArray[np.int64]) -> State:
    """Some rows of a saved state, repeated if they are named more than once."""
    return {name: array[rows] for name, array in state.items()}


def _before_reset(obs: Floats, infos: Mapping[str, Any]) -> Floats:
    """What every step led to: the final observation where it ended an episode, and not the first of the next."""
    return np.where(infos["_final_obs"][:, None], infos["final_obs"], obs) if infos else obs


# ---- the vine


@dataclass(frozen=True)
class Vine:
    """A trunk of T steps in E environments side by side, and K branches in each of N of its states.

    trunk         the trajectories, [T, E, ...]; all their states enter the KL and the Fisher matrix
    chosen        [N, 2]  (t, e) of the states with branches, in the order of time
    saved         the environment's states there, arrays [N, ...]: restore them to follow a branch again, or to draw it
    rollout_set   [N, K]  their observations, first actions, Q-values (float64) and log q
    log_pi_old    [N, K]  log probability of the first actions under the policy that was followed
    lengths       [N, K]  steps in each branch
    branch_steps  simulator steps taken for the branches, those of copies that idled at the end included
    seconds       wall time spent "acting" and "simulating", trunk and branches
    """

    trunk: SinglePath
    chosen: Tensor
    saved: State
    rollout_set: RolloutSet
    log_pi_old: Tensor
    lengths: Tensor
    branch_steps: int
    seconds: dict[str, float]

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken, trunk and branches."""
        return self.trunk.num_steps + self.branch_steps

    @property
    def problem(self) -> str:
        """Why these samples must not be learned from, or "" when all numbers are finite."""
        return self.trunk.problem or ("" if self.rollout_set.q_values.isfinite().all() else "a Q-value is not finite")

    @property
    def states(self) -> States:
        """All states of the trunk, [E * T], for KL and Fisher matrix: `trpo_update(..., states=vine.states)`."""
        return self.trunk.states


def sample_vine(
    trunk_env: RestorableVectorEnv,
    branch_env: RestorableVectorEnv,
    policy: Policy,
    theta: Tensor,
    statistics: RunningMoments,
    raw_obs: Tensor,
    *,
    trunk_steps: int,
    num_states: int,
    first_actions: FirstActions,
    rollout_length: int,
    gamma: float,
    generator: torch.Generator,
    value: Callable[[Tensor], Tensor] | None = None,
    common_random_numbers: bool = True,
) -> Vine:
    """Follow the policy for `trunk_steps` steps in every copy of `trunk_env`, and branch in `num_states` of its states.

    raw_obs: [E, obs_dim] from which the trunk goes on, as in `sample_single_path`. The paper's trunks begin with new
        episodes: for that, give what `trunk_env.reset()` returns.
    branch_env: the same task, of any width; its own state is lost. The numbers do not depend on its width, except
        that a matrix product may round a row differently in another place.
    value: normalised obs [M, obs_dim] -> [M], the estimated value of a state, added where a branch was cut: at the
        rollout's limit and at the time limit of its episode, not at a termination. None adds nothing, as in the paper.
    common_random_numbers: False gives every branch random numbers of its own, also to its environment.

    Raises ValueError for settings out of range. A trunk with a number that is not finite gets no branches, and its
    Q-values are NaN; see `Vine.problem`.
    """
    if not 1 <= num_states <= trunk_steps * trunk_env.num_envs or rollout_length < 1:
        raise ValueError(
            f"{num_states} states with rollouts of {rollout_length} steps are asked for; there must be at least one of "
            f"each, and no more states than the trunk's {trunk_steps} steps of {trunk_env.num_envs} environments"
        )
    chosen = choose_states(trunk_steps, trunk_env.num_envs, num_states, generator)
    env = _SavesChosen(trunk_env, chosen)
    trunk = sample_single_path(env, policy, theta, statistics, raw_obs, trunk_steps, generator)
    saved = env.saved()
    obs = trunk.obs[tuple(chosen.T)]
    with torch.no_grad():
        pi_old = policy(theta, obs)
        actions, log_q = first_actions(pi_old, generator)
    num_branches = actions.shape[1]
    starts = rows_of(saved, np.repeat(np.arange(num_states), num_branches))
    if not common_random_numbers:
        starts["generators"] = new_generators(num_states * num_branches, generator)
    noise = branch_noise(pi_old, rollout_length, num_branches, 1 if common_random_numbers else num_branches, generator)
    rollouts = _not_run(num_states * num_branches, raw_obs.shape[1:])
    if not trunk.problem:
        now = policy.at(theta)
        rollouts = roll_out(
            branch_env, lambda raw: now(statistics.normalise(raw)), starts, actions.flatten(0, 1), noise, gamma
        )
    future = value(statistics.normalise(rollouts.last_obs)).double() if value else torch.zeros_like(rollouts.returns)
    q_values = rollouts.returns + gamma**rollouts.lengths * torch.where(rollouts.terminated, 0.0, future)
    rollout_set = RolloutSet(obs, actions, q_values.view_as(log_q), log_q)
    seconds = {phase: spent + rollouts.seconds[phase] for phase, spent in trunk.seconds.items()}
    log_pi_old = log_prob_of_each(pi_old, actions)
    return Vine(
        trunk, chosen, saved, rollout_set, log_pi_old, rollouts.lengths.view_as(log_q), rollouts.num_steps, seconds
    )


def choose_states(num_steps: int, num_envs: int, num_states: int, generator: torch.Generator) -> Tensor:
    """(t, e) of `num_states` different steps of a trunk, [N, 2], every step equally likely, in the order of time.

    They are chosen before the trunk is followed, so that only their states have to be saved.
    """
    steps = torch.randperm(num_steps * num_envs, generator=generator)[:num_states].sort().values
    return torch.stack((steps // num_envs, steps % num_envs), dim=1)


class _SavesChosen(VectorWrapper):
    """Saves, as it is stepped, the states before the steps `chosen` [N, 2]."""

    def __init__(self, env: RestorableVectorEnv, chosen: Tensor) -> None:
        super().__init__(env)
        self._restorable, self._num_steps = env, 0
        self._chosen: dict[int, list[int]] = {}
        for step, row in chosen.tolist():
            self._chosen.setdefault(step, []).append(row)
        self._saved: list[State] = []

    def step(self, actions: Any) -> Any:
        if self._num_steps in self._chosen:
            self._saved.append(self._restorable.save_state(self._chosen[self._num_steps]))
        self._num_steps += 1
        return self.env.step(actions)

    def saved(self) -> State:
        """Arrays [N, ...]."""
        return {name: np.concatenate([state[name] for state in self._saved]) for name in self._saved[0]}


def branch_noise(
    pi_old: Distribution, length: int, num_branches: int, draws: int, generator: torch.Generator
) -> Tensor:
    """The policy's random numbers in K rollouts of `length` steps from each of N states, [length, N * K, noise_dim].

    draws: how many of the K are independent: 1 (common random numbers: all K branches of a state use the same) or K.
    """
    rows = [torch.stack([pi_old.noise(generator) for _ in range(draws)], dim=1) for _ in range(length)]
    return torch.stack(rows).expand(-1, -1, num_branches, -1).flatten(1, 2)


def new_generators(count: int, generator: torch.Generator) -> NDArray[np.uint64]:
    """Random generators for as many copies of an environment, as a saved state holds them, seeded by `generator`."""
    return pack_generators(make_generators(count, torch.randint(2**62, (count,), generator=generator).tolist()))


def _not_run(count: int, obs_shape: torch.Size) -> Rollouts:
    nothing, nan = torch.zeros(count, dtype=torch.int64), torch.full((count,), math.nan, dtype=torch.float64)
    return Rollouts(nan, nothing, nothing.bool(), torch.zeros(count, *obs_shape), 0, {"acting": 0.0, "simulating": 0.0})
