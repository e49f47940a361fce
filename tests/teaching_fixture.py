"""A small lesson for the tests of the framework: two exercises, their solutions, and an explorer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trpo_lessons.teaching.checks import Check, in_order
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops


def weighted_mean(values, weights):
    """The solution of the first exercise: values [n], weights [n], positive."""
    return float(values @ weights / weights.sum())


def log_softmax_score(logits, index):
    """The solution of the second: the gradient of log softmax(logits)[index], a tensor [n]."""
    return torch.nn.functional.one_hot(torch.tensor(index), len(logits)) - torch.softmax(logits, dim=0)


weighted_mean_check = Check(
    "weighted_mean",
    minutes=4,
    inputs=lambda rng: (rng.normal(size=5), rng.uniform(0.1, 2.0, size=5)),
    solutions=__name__,
)


@weighted_mean_check.property("The mean of equal values should be that value, whatever the weights.")
def equal_values(student, rng):
    value = rng.normal()
    return abs(student(np.full(4, value), rng.uniform(0.1, 1.0, size=4)) - value) < 1e-9


@weighted_mean_check.mistake(
    "concept", "You forget the weights; tempting, because with equal weights nothing would be wrong with it."
)
def ignores_weights(values, _weights):
    return float(values.mean())


@weighted_mean_check.mistake(
    "order", "You pair the values with the weights in reverse; tempting, because a convolution does so."
)
def reversed_weights(values, weights):
    return float(values @ weights[::-1] / weights.sum())


@weighted_mean_check.mistake(
    "constant", "You divide by the number of values; tempting, because that is how a plain mean ends."
)
def divides_by_count(values, weights):
    return float(values @ weights / len(values))


score_check = Check(
    "log_softmax_score",
    minutes=6,
    inputs=lambda rng: (torch.from_numpy(rng.normal(size=4)), int(rng.integers(4))),
    solutions=__name__,
)


@score_check.property("The entries of a score should add up to 0: adding a constant to all logits does nothing.")
def adds_up_to_zero(student, rng):
    return abs(float(student(torch.from_numpy(rng.normal(size=3)), 1).sum())) < 1e-9


@score_check.mistake("sign", "You have the sign of the probabilities wrong; tempting, because the softmax has a plus.")
def plus_probabilities(logits, index):
    return torch.nn.functional.one_hot(torch.tensor(index), len(logits)) + torch.softmax(logits, dim=0)


@score_check.mistake("concept", "You return the probabilities themselves; tempting, because they look like a gradient.")
def probabilities(logits, _index):
    return torch.softmax(logits, dim=0)


@score_check.mistake("order", "You return one line too many; tempting, because a Jacobian is a matrix.")
def wrong_shape_with_a_message(logits, _index):
    p = torch.softmax(logits, dim=0)
    return torch.diag(p) - torch.outer(p, p)


CHECKS = in_order(weighted_mean_check, score_check)


@dataclass(frozen=True)
class Power:
    """The numbers behind the picture: a curve x ** power on [0, 1], scaled."""

    power: int
    scale: float
    kind: str
    y: np.ndarray


def compute_power(power, scale, kind):
    """The curve for these settings; refuses the power 5, to have an explorer that fails somewhere."""
    if power == 5:
        raise ZeroDivisionError("five is <too> many")
    x = np.linspace(0, 1, 11)
    return Power(power, scale, kind, scale * x**power if kind == "up" else -scale * x**power)


def draw_power(numbers, figure):
    """One curve."""
    figure.subplots().plot(np.linspace(0, 1, 11), numbers.y)


def power_explorer() -> Explorer[Power]:
    """Three controls, one of each kind."""
    return Explorer(
        "How fast does a power grow?",
        compute=compute_power,
        facts=lambda numbers: f"power {numbers.power}\nat one half: {numbers.y[5]:.3g} <ok>",
        draw=draw_power,
        alt=lambda numbers: f'A curve "{numbers.kind}" that ends at {numbers.y[-1]:.3g}.',
        controls=[
            Slider("power", "power", 1, 5, 1, 2),
            Stops("scale", "scale", [0.01, 0.1, 1.0], 1.0),
            Choice("kind", "direction", ["up", "down"], "up"),
        ],
    )
