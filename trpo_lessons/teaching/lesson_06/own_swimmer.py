"""A swimmer that learns by a student's own functions, in view; lesson 06.

What lessons 04 to 06 ask for is the student's; sampling, the value function and the statistics are the package's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.collections import PolyCollection
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.kl import mean_kl
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import Actor, by_environment, sample_single_path
from trpo_lessons.surrogate import Batch, surrogate_gradient, surrogate_value
from trpo_lessons.teaching.lesson_06.explorers import DRAWINGS, draw_report
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREY, ORANGE, SKY, LivePicture
from trpo_lessons.training import Run, TrainConfig
from trpo_lessons.training.running.acting import Spaces
from trpo_lessons.training.settings.policy_for import policy_for
from trpo_lessons.value_function import ValueFunction, explained_variance, values_along
from trpo_lessons.viewing.drawing import RobotDrawing

Advantages = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float, float], Tensor]
Update = Callable[..., Tensor]
Floats = npt.NDArray[np.float64]


def watch_own_update(config: TrainConfig, advantages: Advantages, update: Update) -> tuple[Run, list[dict[str, float]]]:
    """Train by `config` with a student's functions, drawing as it goes; the policy that was learned, and a row each.

    advantages  of exercise 3
    update      (policy, theta, batch) and, by name, delta, damping, shrink -> theta; see `own_functions.update_from`
    """
    alt = f"Four curves over the iterations on {config.task}: return, KL, gains, and explained variance."
    live, rows, last = LivePicture(alt, 8.4, 4.8), list[dict[str, float]](), config.iterations
    for row, learned in iterations(config, advantages, update):
        rows.append(row)
        run = learned
        if (last - len(rows)) % max(1, last // DRAWINGS) == 0:
            live.redraw(lambda figure: draw_report(figure, rows, config))
    return run, rows


def iterations(config: TrainConfig, advantages: Advantages, update: Update) -> Iterator[tuple[dict[str, float], Run]]:
    """What `watch_own_update` draws: after each iteration its row, and the policy as it is then."""
    generator = torch.Generator().manual_seed(config.seed)
    env = envs.make(config.task, config.num_envs, threads=1)
    seeds = envs.derived_seeds(config.seed, "training after iteration 0", config.num_envs)
    raw_obs = torch.as_tensor(envs.begin_episodes(env, seeds))
    policy = policy_for(env, config)
    theta, obs_dim = policy.initial_theta(generator), raw_obs.shape[1]
    value, statistics = ValueFunction(obs_dim, config.value_hidden, generator), RunningMoments.empty(obs_dim)
    for iteration in range(1, config.iterations + 1):
        path = sample_single_path(env, Actor(policy, theta, statistics), raw_obs, config.rows, generator)
        values, after = values_along(path, statistics, value)
        found = advantages(path.rewards, values, after, path.terminated, path.truncated, config.gamma, config.lam)
        batch = path.batch((found - found.mean()) / found.std())
        new = update(policy, theta, batch, delta=config.delta, damping=config.damping, shrink=config.shrink)
        returns = by_environment(found + values)
        row = {"iteration": iteration, "return": float(np.mean(path.episode_returns or [math.nan]))}
        row |= report_of(policy, theta, new, batch)
        row |= {"explained_variance": explained_variance(by_environment(values), returns)}
        value.fit(batch.obs, returns, stride=config.value_stride)
        theta, statistics, raw_obs = new, statistics.including(path.raw_obs.flatten(0, 1)), path.next_obs
        yield row, Run(Path(), config, policy, theta, statistics, Spaces.of(env), iteration)


MOST_MOVED = 20  # actions


def report_of(policy: Policy, theta: Tensor, new: Tensor, batch: Batch) -> dict[str, float]:
    """What an update from `theta` to `new` [num_parameters] came to, found out from outside.

    few_actions: which share of the gain on the batch comes from the twenty actions that gave or took most.
    """
    with torch.no_grad():
        ratios = torch.exp(policy(new, batch.obs).log_prob(batch.actions) - batch.log_q)
    gains = ((ratios - 1) * batch.advantages).double()
    most = gains[gains.abs().argsort(descending=True)[:MOST_MOVED]]
    total = float(gains.sum())
    return {
        "mean_kl": mean_kl(policy, theta, new, batch),
        "surrogate_gain": surrogate_value(policy, new, batch) - surrogate_value(policy, theta, batch),
        "predicted_gain": float(torch.dot(surrogate_gradient(policy, theta, batch), new - theta)),
        "largest_ratio": float(ratios.max()),
        "few_actions": float(most.sum()) / total if total else math.nan,
        "accepted": float(not torch.equal(new, theta)),
    }


# ---- the swimmer moves -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swim:
    """Positions [steps + 1, nq] of a swimmer, seconds of one step, and the outlines of its links at given positions."""

    positions: Floats
    seconds: float
    outlines: Callable[[Floats], list[Floats]]

    @property
    def distance(self) -> float:
        """How far it came along x, in m."""
        return float(self.positions[-1, 0] - self.positions[0, 0])


def swim(run: Run, seconds: float = 24.0, seed: int = 0) -> Swim:
    """Follow the most likely actions for so many seconds of the swimmer's time, from a start of its own."""
    env = envs.make(run.config.task, 1, threads=1)
    assert isinstance(env, MujocoVectorEnv)
    obs, _ = env.reset(seed=10_000 + seed)
    places = [env.positions[0].copy()]
    for _ in range(round(seconds / env.control_step)):
        obs, *_ = env.step(run.act(obs))
        places.append(env.positions[0].copy())
    return Swim(np.array(places), env.control_step, RobotDrawing(env.model).outlines)


def untrained(run: Run) -> Run:
    """The same network before its first update: it starts with all its outputs near zero."""
    generator = torch.Generator().manual_seed(run.config.seed)
    statistics = RunningMoments.empty(run.statistics.mean.shape)
    return replace(run, theta=run.policy.initial_theta(generator), statistics=statistics, iteration=0)


STROBE = 3  # times at which the last picture shows the links


def play(swims: Mapping[str, Swim], frames: int = 16) -> None:
    """Show the swimmers moving, in place; what is left in the end is a picture of the whole way.

    Each frame is drawn while you look, so they run at the pace of your machine, not of the water.
    """
    alt = f"Swimmers from above, {' and '.join(swims)}: their links at {STROBE} times, and the way of a point of each."
    live, steps = LivePicture(alt, 9.0, 4.4), max(len(each.positions) for each in swims.values()) - 1
    for t in np.linspace(0, steps, frames).astype(int).tolist():
        live.redraw(lambda figure, t=t: draw_swims(figure, swims, [t], t))  # type: ignore[misc]
    live.redraw(lambda figure: draw_swims(figure, swims, np.linspace(0, steps, STROBE).astype(int).tolist(), steps))


def draw_swims(figure: FigureBase, swims: Mapping[str, Swim], times: Sequence[int], until: int) -> None:
    """Side by side and to the same scale: the links at each of `times`, and the way up to step `until`."""
    every = np.concatenate([each.positions[:, :2] for each in swims.values()])
    middle, reach = (every.min(0) + every.max(0)) / 2, np.ptp(every, axis=0).max() / 2 + 2.2
    panels = figure.subplots(1, len(swims), sharey=True, squeeze=False)[0]
    for axes, (name, each) in zip(panels, swims.items(), strict=True):
        axes.plot(*each.positions[: until + 1, :2].T, color=GREY, linestyle="-", linewidth=1.2)
        for t in times:
            links = each.outlines(each.positions[t])
            shades = (SKY, ORANGE, BLUE)
            axes.add_collection(PolyCollection(links, facecolors=shades, edgecolors=BLACK, linewidths=0.7, zorder=3))
        axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - 0.8 * reach, middle[1] + 0.8 * reach))
        axes.set(title=f"{name}, {each.seconds * until:.0f} s", xlabel="x, m", aspect="equal")
    panels[0].set_ylabel("y, m")
