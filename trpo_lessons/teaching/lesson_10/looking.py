"""What a policy of pictures looks at: its filters, and what happens when a patch is covered. Lesson 10, section 7.

Everything is computed in float64, so that every machine agrees on what is printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import FigureBase
from torch import Tensor
from torch.nn import functional

from trpo_lessons.distributions import Distribution
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.training import Run
from trpo_lessons.viewing.style import COLOR_MAP

FILTERS, SIZE, STACK = 16, 4, 4
FIRST = FILTERS * STACK * SIZE * SIZE  # weights of the first layer


def seen(run: Run, states: Bytes) -> Tensor:
    """Observations in bytes as the run's policy sees them, float64 [N, 4, height, width]; 0 is the mean frame."""
    return run.statistics.normalise(torch.from_numpy(states.copy())).double()


def answers(run: Run, theta: Tensor | None = None) -> Callable[[Tensor], Distribution]:
    """The policy at its own theta or another one, in float64, without gradient."""
    at = (run.theta if theta is None else theta).double()

    def answer(obs: Tensor) -> Distribution:
        with torch.no_grad():
            return run.policy(at, obs)

    return answer


def size_of_outputs(run: Run) -> int:
    """How many entries of theta, its last ones, belong to the layer that gives the logits."""
    return run.policy.head.num_inputs * (run.config.hidden[-1] + 1)


def filters(theta: Tensor) -> Floats:
    """The first layer's filters [16, 4 frames, 4, 4]."""
    return np.asarray(theta[:FIRST].view(FILTERS, STACK, SIZE, SIZE).double().numpy())


def cosines(one: Floats, other: Floats) -> Floats:
    """Of each filter with its counterpart, [16]."""
    a, b = one.reshape(len(one), -1), other.reshape(len(other), -1)
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def responses(run: Run, obs: Tensor) -> Floats:
    """What the first layer's filters answer to one observation [4, height, width]: [16, rows, columns], after tanh."""
    weight, bias = run.theta[:FIRST].double(), run.theta[FIRST : FIRST + FILTERS].double()
    found = functional.conv2d(obs[None], weight.view(FILTERS, STACK, SIZE, SIZE), bias, stride=2)[0]
    return np.asarray(torch.tanh(found).numpy())


def with_first_layer_of(run: Run, other: Run) -> Tensor:
    """The run's theta with the first convolution of another one."""
    theta = run.theta.clone()
    theta[: FIRST + FILTERS] = other.theta[: FIRST + FILTERS]
    return theta


def occlusion(answer: Callable[[Tensor], Distribution], obs: Tensor, patch: int) -> Floats:
    """KL(whole || covered) in nats of every patch of one observation [4, height, width], [rows, columns].

    A covered patch shows the mean frame, in all four frames.
    """
    _, height, width = obs.shape
    rows, columns = range(0, height, patch), range(0, width, patch)
    covered = obs.repeat(len(rows) * len(columns), 1, 1, 1)
    for number, each in enumerate(covered):
        row, column = rows[number // len(columns)], columns[number % len(columns)]
        each[:, row : row + patch, column : column + patch] = 0
    whole = answer(obs[None])
    lengthened = whole.with_parameters(*(parameter.expand(len(covered), -1) for parameter in whole.parameters))
    return np.asarray(lengthened.kl(answer(covered)).view(len(rows), len(columns)).numpy())


def shuffled(obs: Tensor, seed: int = 0, patch: int = 4) -> Tensor:
    """The same patches of an observation in another order, the same one in all four frames: no picture of a game."""
    _, height, width = obs.shape
    tiles = obs.view(STACK, height // patch, patch, width // patch, patch).permute(1, 3, 0, 2, 4).flatten(0, 1)
    order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(seed))
    mixed = tiles[order].view(height // patch, width // patch, STACK, patch, patch)
    return mixed.permute(2, 0, 3, 1, 4).reshape(obs.shape).contiguous()


def decided(run: Run, like: Run) -> Tensor:
    """The theta of `run` with its outputs made as large as those of `like`: as sure of itself, and as ignorant."""
    theta, last = run.theta.clone(), size_of_outputs(run)
    theta[-last:] *= like.theta[-last:].norm() / theta[-last:].norm()
    return theta


@dataclass(frozen=True)
class Changes:
    """Mean KL in nats between what a policy does in its states and what it does when something is changed.

    still  the newest frame four times: nothing moves
    earlier_filters  the first layer as it was before training
    other_state      another of the states
    """

    still: float
    earlier_filters: float
    other_state: float


def changes(run: Run, states: Bytes, before: Run) -> Changes:
    """How much the run's policy minds."""
    obs = seen(run, states)
    whole = answers(run)(obs)

    def mean_kl(other: Distribution) -> float:
        return float(whole.kl(other).mean())

    return Changes(
        mean_kl(answers(run)(obs[:, -1:].repeat(1, STACK, 1, 1))),
        mean_kl(answers(run, with_first_layer_of(run, before))(obs)),
        mean_kl(answers(run)(obs.roll(1, 0))),
    )


def in_patches(obs: Tensor, patch: int) -> Floats:
    """The sum of squares of one observation [4, height, width] in every patch, [rows, columns]."""
    rows, columns = (range(0, length, patch) for length in obs.shape[1:])
    squares = obs.square().sum(0)
    return np.array([[float(squares[r : r + patch, c : c + patch].sum()) for c in columns] for r in rows])


def half_of(found: Floats) -> int:
    """How few of a map's patches make up half of its sum."""
    total = np.sort(found.ravel())[::-1].cumsum()
    return int(np.searchsorted(total, total[-1] / 2) + 1)


def draw_filters(figure: FigureBase, banks: Mapping[str, Floats], shown: Sequence[int]) -> None:
    """Filters of several networks, a row of four frames each, one network beside the other."""
    largest = max(float(np.abs(bank).max()) for bank in banks.values())
    columns = figure.subfigures(1, len(banks), squeeze=False)[0]
    for part, (name, bank) in zip(columns, banks.items(), strict=True):
        part.suptitle(name, fontsize=11)
        panels = part.subplots(len(shown), STACK)
        for row, number in zip(panels, shown, strict=True):
            for axes, kernel in zip(row, bank[number], strict=True):
                axes.imshow(kernel, cmap="PuOr", vmin=-largest, vmax=largest)
                axes.set_axis_off()


def draw_responses(figure: FigureBase, frame: Bytes, found: Floats) -> None:
    """The newest frame, and what each filter answers to the stack."""
    left, right = figure.subfigures(1, 2, width_ratios=(1, 3.2), squeeze=False)[0]
    axes = left.subplots()
    axes.imshow(frame, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=(), yticks=(), title="newest frame")
    axes.grid(visible=False)
    for axes, answer in zip(right.subplots(2, math.ceil(len(found) / 2)).ravel(), found, strict=True):
        axes.imshow(answer, cmap=COLOR_MAP, vmin=-1, vmax=1)
        axes.set_axis_off()
