"""What V says of a recorded swimmer, and a swimmer that learns by a student's own functions, in view; lesson 09."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from matplotlib.figure import FigureBase

from trpo_lessons import envs
from trpo_lessons.single_path import Actor, sample_single_path
from trpo_lessons.teaching.pictures import BLUE, GREY, VERMILION, LivePicture
from trpo_lessons.training import Run
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.running.stopping import check, postponed_interrupts
from trpo_lessons.value_function import ValueFunction, values_along

COPIES, STEPS = 8, 1000


@dataclass(frozen=True)
class WhatVSays:
    """Of the states in which a policy spends its time: mean and standard deviation of V; and what the policy earns,
    as the discounted sum of its mean reward for ever."""

    level: float
    spread: float
    earned: float


def what_v_says(run: Run) -> WhatVSays:
    """Follow a recorded policy, with its noise, and ask the value function that was recorded with it."""
    config = run.config
    value = ValueFunction(run.statistics.mean.shape[0], config.value_hidden, torch.Generator().manual_seed(0))
    tensors, _ = RunFolder(run.folder).load_checkpoint()
    value.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("value.")})
    with closing(envs.make(config.task, COPIES, threads=1)) as env:
        raw_obs = torch.as_tensor(envs.begin_episodes(env, envs.derived_seeds(0, "what V says", COPIES)))
        actor = Actor(run.policy, run.theta, run.statistics)
        path = sample_single_path(env, actor, raw_obs, STEPS, torch.Generator().manual_seed(0))
    values, _ = values_along(path, run.statistics, value)
    earned = float(path.rewards.mean()) / (1 - config.gamma)
    return WhatVSays(float(values.mean()), float(values.std()), earned)


class Learner(Protocol):
    """A swimmer between two iterations: the returns of all episodes that have ended, and the KL of every update."""

    returns: list[float]
    kls: list[float]

    def iterate(self) -> None:
        """From one iteration to the next."""


@dataclass(frozen=True)
class Seen:
    """Mean return of the first four episodes, and of the latest eight."""

    first: float
    latest: float


DRAWINGS = 8


@postponed_interrupts()
def watch(swimmer: Learner, iterations: int) -> Seen:
    """Let it learn, drawing as it goes. The stop button ends it between two iterations, with all that is finished."""
    alt = "Two panels as a swimmer learns: the returns of its episodes, and the KL of every update."
    live = LivePicture(alt, 8.4, 2.8)
    try:
        for left in reversed(range(iterations)):
            swimmer.iterate()
            if left % max(1, iterations // DRAWINGS) == 0:
                live.redraw(lambda figure: draw_learner(figure, swimmer))
            check()
    except KeyboardInterrupt:
        live.redraw(lambda figure: draw_learner(figure, swimmer))
    return Seen(float(np.mean(swimmer.returns[:4])), float(np.mean(swimmer.returns[-8:])))


def draw_learner(figure: FigureBase, swimmer: Learner) -> None:
    """Returns against episodes, KLs against iterations."""
    returns, kl = figure.subplots(1, 2)
    returns.plot(swimmer.returns, "o", color=BLUE, markersize=4)
    returns.set(title="return of each episode", xlabel="episode")
    kl.plot(range(1, len(swimmer.kls) + 1), swimmer.kls, color=VERMILION, linestyle="-", marker="o", markersize=3)
    kl.axhline(0.01, color=GREY, linestyle="--", linewidth=1)
    kl.set(title="mean KL", xlabel="iteration", ylim=(0, 0.0115))
