"""Exercise one_iteration of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_06.shared import close

Normalise = Callable[[Tensor], Tensor]
Collect = Callable[[Tensor, Normalise], Tensor]
Update = Callable[[Tensor, Tensor], Tensor]
Result = tuple[Tensor, RunningMoments]
Iteration = Callable[[Tensor, RunningMoments, Collect, Update], Result]


class Between(NamedTuple):
    """What is handed to `one_iteration`."""

    theta: Tensor
    statistics: RunningMoments
    collect: Collect
    update: Update

    def raw_obs(self) -> Tensor:
        """What the policy sees when it follows theta with these statistics."""
        return self.collect(self.theta, self.statistics.normalise)


def moments_of(raw_obs: Tensor) -> RunningMoments:
    """Those of this batch alone."""
    return RunningMoments.empty(raw_obs.shape[-1]).including(raw_obs)


def between_two_iterations(rng: Generator) -> Between:
    """Theta [3], statistics of thirty earlier observations, a policy's walk through raw observations, an update."""
    statistics = RunningMoments.empty(3).including(2 * normal(rng, 30, 3) + 1)
    noise, start = normal(rng, 12, 3), normal(rng, 3)

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        raw, rows = 5 * start, []
        for wind in noise:
            rows.append(raw)
            raw = raw + wind + torch.tanh(theta * normalise(raw))
        return torch.stack(rows)

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        return theta + torch.tanh(obs.double()).square().mean(0)

    return Between(normal(rng, 3), statistics, collect, update)


one_iteration = Check("one_iteration", minutes=6, inputs=between_two_iterations, arguments=Between)


@one_iteration.property(
    "One iteration follows the policy once and updates once: call `collect` and then `update`, once each. What the new "
    "policy does is for the next iteration to see."
)
def collects_once_and_updates_once(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    called: list[str] = []

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        called.append("collect")
        return x.collect(theta, normalise)

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        called.append("update")
        return x.update(theta, obs)

    student(x.theta, x.statistics, collect, update)
    return called == ["collect", "update"]


@one_iteration.property("The theta that comes back should be the one that `update` returned.")
def the_new_theta_comes_back(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    updated = normal(rng, 3)
    after, _ = student(*x._replace(update=lambda _theta, _obs: updated.clone()))
    return close(after, updated)


@one_iteration.property("The policy should act on observations that are normalized by the statistics as they stand.")
def acts_on_normalised_observations(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    raw_obs = torch.full((2, 3), 1.5, dtype=torch.float64)
    given: list[Tensor] = []

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        given.append(normalise(raw_obs))
        return x.collect(theta, normalise)

    student(*x._replace(collect=collect))
    return close(given[0], x.statistics.normalise(raw_obs))


@one_iteration.property("The update should be given the very numbers that the policy saw while it collected.")
def updates_on_what_was_seen(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    learned_from: list[Tensor] = []

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        learned_from.append(obs)
        return x.update(theta, obs)

    student(*x._replace(update=update))
    return close(learned_from[0], x.statistics.normalise(x.raw_obs()))


@one_iteration.property("The statistics that come back should know the old observations and the new ones.")
def statistics_grow(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    _, after = student(*x)
    return close(after.mean, x.statistics.including(x.raw_obs()).mean)


@one_iteration.property(
    "What is easy to test holds, but theta or the statistics are still others. Count, mean and deviations should be "
    "those of `including` the raw observations, once."
)
def all_of_the_statistics(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    theta, after = student(*x)
    raw_obs = x.raw_obs()
    right = x.statistics.including(raw_obs)
    of_theta = close(theta, x.update(x.theta, x.statistics.normalise(raw_obs)))
    return of_theta and after.count == right.count and close(after.deviations, right.deviations)


@one_iteration.property(
    "The first iteration goes wrong, where nothing has been seen yet. It is no exception: statistics of nothing leave "
    "observations as they are, and policy and update see the same numbers."
)
def the_first_iteration(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)._replace(statistics=RunningMoments.empty(3))
    theta, after = student(*x)
    raw_obs = x.raw_obs()
    return close(theta, x.update(x.theta, raw_obs)) and close(after.mean, raw_obs.mean(0))


@one_iteration.mistake(
    "order",
    "You renew the statistics before the update; tempting, because fresh ones are better. The update then sees numbers "
    "that the policy never saw, and its ratios do not start at 1. Update first, renew afterward.",
)
def renews_before_the_update(x: Between) -> Result:
    raw_obs = x.raw_obs()
    statistics = x.statistics.including(raw_obs)
    return x.update(x.theta, statistics.normalise(raw_obs)), statistics


@one_iteration.mistake(
    "concept",
    "The statistics never change; tempting, because they must not move. Not between collecting and updating; from one "
    "iteration to the next they have to, or the policy squints at places that it first reaches late. Hand back what "
    "`including` returns: it leaves the old moments as they were.",
)
def never_renews(x: Between) -> Result:
    return x.update(x.theta, x.statistics.normalise(x.raw_obs())), x.statistics


@one_iteration.mistake(
    "conditioning",
    "You hand raw observations to the update; tempting, because they are what collect returns. The policy acted on "
    "normalized ones: its probabilities at raw ones are those of another policy.",
)
def updates_on_raw_observations(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, raw_obs), x.statistics.including(raw_obs)


@one_iteration.mistake(
    "conditioning",
    "You normalize the batch by its own mean and variance; tempting, because that is what one does to data in a table. "
    "While the batch was collected nobody knew them: the policy saw the older statistics, and so must the update.",
)
def normalises_by_the_batch(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, moments_of(raw_obs).normalise(raw_obs)), x.statistics.including(raw_obs)


@one_iteration.mistake(
    "concept",
    "You put normalized observations into the statistics; tempting, because these are the ones at hand. Then the "
    "statistics learn that everything has mean 0 and variance 1, and forget the units of the world: include raw ones.",
)
def includes_normalised_observations(x: Between) -> Result:
    obs = x.statistics.normalise(x.raw_obs())
    return x.update(x.theta, obs), x.statistics.including(obs)


@one_iteration.mistake(
    "concept",
    "You replace the statistics by those of the new batch; tempting, because the newest policy matters most. They then "
    "jump with the luck of every batch, and each jump is a change of policy that no trust region holds back.",
)
def forgets_what_was_seen(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, x.statistics.normalise(raw_obs)), moments_of(raw_obs)


@one_iteration.mistake(
    "concept",
    "You include the batch twice; tempting where statistics are renewed both after collecting and after the update. "
    "Each observation counts once, or the newest ones weigh double.",
)
def includes_the_batch_twice(x: Between) -> Result:
    raw_obs = x.raw_obs()
    theta = x.update(x.theta, x.statistics.normalise(raw_obs))
    return theta, x.statistics.including(raw_obs).including(raw_obs)


@one_iteration.mistake(
    "concept",
    "Your policy collects on raw observations and learns on normalized ones; tempting, because normalising looks like "
    "a matter of learning. The policy is the network with its normalization: both belong to acting, too.",
)
def acts_on_raw_observations(x: Between) -> Result:
    raw_obs = x.collect(x.theta, lambda raw: raw)
    return x.update(x.theta, x.statistics.normalise(raw_obs)), x.statistics.including(raw_obs)
