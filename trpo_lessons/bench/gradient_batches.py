"""Gradients of one policy, batch after batch: along a single path, and from one vine after the other.

Reading order: after `gradient_subjects`, which says whose gradients these are; before `gradient_variance`, which says
how noisy they are.

Every estimator is asked for the same thing, the gradient of the surrogate at theta_old, from batch after batch. Its
batches come from one run that goes on and on, so that nothing is cut at the end of a batch and every step is paid for
once, those of the trunk too. Copies that idle at the end of a small vine are not counted: a large one keeps them busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lessons.advantages import discounted_returns, gae
from trpo_lessons.bench.gradient_subjects import NUM_ENVS, Subject, follow, long_run
from trpo_lessons.rollout_set import every_action, from_the_policy
from trpo_lessons.single_path import SinglePath, by_environment
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.value_function import values_along
from trpo_lessons.vine import Branching, Vine, sample_vine

TRUNK_STEPS = 8  # of the trunk for every state with branches; the paper's hopper has 6.4


@dataclass(frozen=True)
class Gradients:
    """The gradients of R batches, [R, num_parameters], float64, and how many simulator steps a batch took."""

    rows: Tensor
    steps: float


# ---- a single path


RETURNS, MEAN_OFF, VALUE_OFF, GAE = "returns", "returns - their mean", "returns - V", "GAE"


def single_path_gradients(subject: Subject, batches: int, rows: int, seed: int) -> dict[str, Gradients]:
    """One path of `batches` * `rows` steps in every copy, cut into batches; four ways to say what an action was worth.

    Returns are those of the whole path, also of the steps that fall into the next batch; only where the whole run ends
    they are cut, and V stands for the rest.
    """
    env, raw_obs, generator = long_run(subject, seed)
    path = follow(subject, env, raw_obs, batches * rows, generator)
    pieces = [slice(start, start + rows) for start in range(0, batches * rows, rows)]
    found = {}
    for name, worth in worth_of_actions(subject, path).items():
        mean_off = name == MEAN_OFF
        gradients = [path_gradient(subject, path, worth, here, mean_off=mean_off) for here in pieces]
        found[name] = Gradients(torch.stack(gradients), rows * NUM_ENVS)
    return found


def worth_of_actions(subject: Subject, path: SinglePath) -> dict[str, Tensor]:
    """What every action of a path was worth, [T, E] each, in units of discounted reward.

    The mean of returns is not taken off yet: it is that of a batch.
    """
    values, next_values = values_along(path, subject.statistics, subject.value)
    ends = path.terminated, path.truncated
    returns = discounted_returns(path.rewards, next_values, *ends, subject.gamma)
    advantages = gae(path.rewards, values, next_values, *ends, subject.gamma, subject.lam)
    return {RETURNS: returns, MEAN_OFF: returns, VALUE_OFF: returns - values, GAE: advantages}


def path_gradient(subject: Subject, path: SinglePath, worth: Tensor, here: slice, *, mean_off: bool) -> Tensor:
    """The gradient of equation 15 at theta_old from the steps `here` of all copies, [num_parameters], float64.

    worth: [T, E], of all steps of the path.
    """
    advantages = worth[here] - worth[here].mean() if mean_off else worth[here]
    columns = (path.obs[here], path.actions[here], advantages.float(), path.log_q[here])
    batch = Batch(*(by_environment(column) for column in columns))
    return surrogate_gradient(subject.policy, subject.theta, batch).double()


# ---- a vine


@dataclass(frozen=True)
class VineSettings:
    """How a vine grows.

    branches      K; tasks with discrete actions try each of them once, whatever K is
    length        steps of a rollout, at most
    common        whether the branches of a state share their random numbers
    value_at_cut  whether V stands for what a rollout that was cut leaves out
    trunk_steps   simulator steps of the trunk, for every state with branches
    """

    branches: int
    length: int
    common: bool = True
    value_at_cut: bool = False
    trunk_steps: int = TRUNK_STEPS

    @property
    def name(self) -> str:
        """Such as "K 4, length 10, V at the cut, own random numbers"."""
        parts = [f"K {self.branches}", f"length {self.length}"]
        parts += ["V at the cut"] * self.value_at_cut + ["own random numbers"] * (not self.common)
        return ", ".join(parts)


def vines(subject: Subject, settings: VineSettings, batch_steps: int, seed: int) -> Iterator[Vine]:
    """Vine after vine, each from where the trunk of the one before ended; each costs about `batch_steps` steps."""
    env, raw_obs, generator = long_run(subject, seed)
    branch_env = subject.env(32, seed)

    def grow(raw_obs: Tensor, num_states: int) -> Vine:
        branching = Branching(
            num_states=num_states,
            first_actions=every_action if has_few_actions(subject) else from_the_policy(settings.branches),
            rollout_length=settings.length,
            gamma=subject.gamma,
            value=subject.value if settings.value_at_cut else None,
            common_random_numbers=settings.common,
        )
        trunk_steps = max(1, round(num_states * settings.trunk_steps / NUM_ENVS))
        return sample_vine(env, branch_env, subject.pi_old, raw_obs, trunk_steps, branching, generator)

    grown = grow(raw_obs, 64)  # not used: it says how long branches are, which end where episodes do
    num_states = affordable_states(grown, settings, batch_steps)
    while True:
        grown = grow(grown.trunk.next_obs, num_states)
        yield grown


def has_few_actions(subject: Subject) -> bool:
    """Whether every action can be tried once, as equation 16 asks for."""
    return subject.task == "cartpole"


def affordable_states(trial: Vine, settings: VineSettings, batch_steps: int) -> int:
    """How many states a vine of about `batch_steps` steps can have, if its branches are as long as those of `trial`."""
    per_state = settings.trunk_steps + trial.lengths.double().sum(1).mean().item()
    return max(1, round(batch_steps / per_state))


def vine_gradients(subject: Subject, settings: VineSettings, batches: int, batch_steps: int, seed: int) -> Gradients:
    """The gradients of equation 16 on discrete tasks, of equation 17 on continuous ones, from `batches` vines."""
    rows, steps = [], 0
    for _, grown in zip(range(batches), vines(subject, settings, batch_steps, seed), strict=False):
        rows.append(surrogate_gradient(subject.policy, subject.theta, grown.rollout_set, grown.surrogate).double())
        steps += grown.trunk.num_steps + int(grown.lengths.sum())
    return Gradients(torch.stack(rows), steps / batches)
