"""Exercise joystick_log_prob of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal, survives

LogProb = Callable[[Tensor, tuple[int, ...], Tensor], Tensor]


class Pushes(NamedTuple):
    """What the student's function is given."""

    logits: Tensor
    sizes: tuple[int, ...]
    actions: Tensor


def pushes(rng: Generator) -> Pushes:
    """Six states, three choices of different sizes, and an action in each."""
    sizes = tuple(int(n) for n in rng.permutation([4, 3, 2]))
    actions = torch.stack([torch.from_numpy(rng.integers(0, n, 6)) for n in sizes], dim=1)
    return Pushes(1.5 * normal(rng, 6, sum(sizes)), sizes, actions)


def value_and_gradient(
    log_prob: LogProb, logits: Tensor, sizes: tuple[int, ...], actions: Tensor
) -> tuple[Tensor, Tensor]:
    """What is returned, and the gradient of its sum in the logits; 0 where none flows."""
    asked = logits.clone().requires_grad_()
    found = log_prob(asked, sizes, actions)
    if not found.requires_grad:
        return found, torch.zeros_like(logits)
    return found.detach(), torch.autograd.grad(found.sum(), asked)[0]


joystick_log_prob = Check("joystick_log_prob", minutes=6, inputs=pushes, arguments=Pushes, behavior=value_and_gradient)


def every_action(sizes: tuple[int, ...]) -> Tensor:
    """All joint actions, [product of the sizes, choices]."""
    return torch.cartesian_prod(*(torch.arange(n) for n in sizes))


@joystick_log_prob.property("The probabilities of all joint actions of a state should add up to 1.")
def adds_up_to_one(student: LogProb, rng: Generator) -> bool:
    logits, sizes, _ = pushes(rng)
    actions = every_action(sizes)
    rows = logits[:1].expand(len(actions), -1).contiguous()
    return survives(lambda: abs(float(student(rows, sizes, actions).exp().sum()) - 1) < 1e-9)


@joystick_log_prob.property("The same number added to all logits of one choice should change nothing.")
def shifts_of_one_choice(student: LogProb, rng: Generator) -> bool:
    logits, sizes, actions = pushes(rng)
    moved = logits.clone()
    moved[:, : sizes[0]] += 2.0
    return survives(lambda: torch.allclose(student(moved, sizes, actions), student(logits, sizes, actions)))


@joystick_log_prob.property("A single choice should have its ordinary log probability.")
def a_single_choice(student: LogProb, rng: Generator) -> bool:
    logits, sizes, actions = pushes(rng)
    one = logits[:, : sizes[0]].clone()
    expected = torch.log_softmax(one, -1).gather(1, actions[:, :1])[:, 0]
    return survives(lambda: torch.allclose(student(one, sizes[:1], actions[:, :1]), expected))


@joystick_log_prob.property(
    "The gradient in the logits of one choice should add up to 0: what makes one action likelier makes the others less "
    "likely. Let it flow through the normalising constant as well."
)
def gradients_add_up_to_zero(student: LogProb, rng: Generator) -> bool:
    logits, sizes, actions = pushes(rng)
    _, gradient = value_and_gradient(student, logits, sizes, actions)
    return survives(
        lambda: all(float(each.sum(1).abs().max()) < 1e-9 for each in torch.split(gradient, list(sizes), 1))
    )


@joystick_log_prob.property(
    "An action that is all but impossible goes wrong: exp of its logit is 0, and log(0) is minus infinity. Use "
    "torch.log_softmax, which never takes that logarithm.",
    edge=True,
)
def unlikely_actions(student: LogProb, rng: Generator) -> bool:
    _, sizes, _ = pushes(rng)
    logits = torch.zeros(1, sum(sizes), dtype=torch.float64)
    logits[0, 0] = -2000.0
    actions = torch.zeros(1, len(sizes), dtype=torch.int64)
    expected = joystick_log_prob.reference(logits, sizes, actions)
    return survives(lambda: torch.allclose(student(logits, sizes, actions), expected))


def parts(p: Pushes, logits: Tensor | None = None) -> list[Tensor]:
    """The log probability [N] that each choice has of its own."""
    of_choices = torch.split(p.logits if logits is None else logits, list(p.sizes), dim=1)
    return [
        torch.log_softmax(each, 1).gather(1, a[:, None])[:, 0]
        for each, a in zip(of_choices, p.actions.unbind(1), strict=True)
    ]


def starts(sizes: tuple[int, ...]) -> list[int]:
    """The first column of each choice."""
    return [sum(sizes[:i]) for i in range(len(sizes))]


@joystick_log_prob.mistake(
    "concept",
    "You take one softmax over all logits; tempting, because they stand in one row. They belong to independent "
    "choices, each with probabilities that add up to 1 by themselves.",
)
def one_softmax(p: Pushes) -> Tensor:
    columns = p.actions + torch.tensor(starts(p.sizes))
    return torch.log_softmax(p.logits, 1).gather(1, columns).sum(1)


@joystick_log_prob.mistake(
    "concept",
    "You multiply log probabilities; tempting, because independent probabilities multiply. They do, and their "
    "logarithms add up.",
)
def multiplies_logs(p: Pushes) -> Tensor:
    return torch.stack(parts(p)).prod(0)


@joystick_log_prob.mistake(
    "concept",
    "You add probabilities and take the logarithm then; tempting, because a sum is in the formula. The joystick has to "
    "be left *and* down *and* with the button: that is a product, and a sum of logarithms.",
)
def adds_probabilities(p: Pushes) -> Tensor:
    return torch.stack(parts(p)).exp().sum(0).log()


@joystick_log_prob.mistake(
    "concept",
    "You take the mean over the choices; tempting, because then the number is of the size that one choice has. The KL "
    "and the ratios would belong to another policy, whose probabilities do not add up to 1.",
)
def mean_over_choices(p: Pushes) -> Tensor:
    return torch.stack(parts(p)).mean(0)


@joystick_log_prob.mistake(
    "concept",
    "You leave the last choice out; tempting, because a button looks like a detail. Its probability is a factor like "
    "the others, and without it the button is never learned.",
)
def no_button(p: Pushes) -> Tensor:
    return torch.stack(parts(p)[:-1]).sum(0)


@joystick_log_prob.mistake(
    "indexing",
    "All your choices read the first logits of the row; tempting, because every action counts from 0. Each choice has "
    "columns of its own, behind those of the choices before it.",
)
def all_from_the_first_column(p: Pushes) -> Tensor:
    found = [
        torch.log_softmax(p.logits[:, :n], 1).gather(1, a[:, None])[:, 0]
        for n, a in zip(p.sizes, p.actions.unbind(1), strict=True)
    ]
    return torch.stack(found).sum(0)


@joystick_log_prob.mistake(
    "order",
    "You split the logits from the right, the last choice first; tempting, if one thinks of the button first. `sizes` "
    "and `actions` have the order of the columns.",
)
def from_the_right(p: Pushes) -> Tensor:
    return torch.stack(parts(p, torch.cat(torch.split(p.logits, list(p.sizes), dim=1)[::-1], 1))).sum(0)


@joystick_log_prob.mistake(
    "concept",
    "You return logits; tempting, because the largest logit is the likeliest. A logit is a log probability up to a "
    "constant, and the constant is another one in every state.",
)
def logits_themselves(p: Pushes) -> Tensor:
    return p.logits.gather(1, p.actions + torch.tensor(starts(p.sizes))).sum(1)


@joystick_log_prob.mistake(
    "detachment",
    "The numbers are right, and no gradient flows from them to the logits; tempting, because a probability looks like "
    "a number to be stored. The surrogate is differentiated through it: leave out detach(), item() and NumPy.",
)
def detached(p: Pushes) -> Tensor:
    return torch.stack(parts(p)).sum(0).detach()


@joystick_log_prob.mistake(
    "numerics",
    "You add a small number before you take the logarithm; tempting, because log(0) is minus infinity. It changes "
    "every probability a little, so that ratios of policies are off. torch.log_softmax needs no such number.",
)
def small_number_in_the_log(p: Pushes) -> Tensor:
    return torch.stack([torch.log(each.exp() + 1e-8) for each in parts(p)]).sum(0)


@joystick_log_prob.mistake(
    "concept",
    "You return the probability; tempting, because that is what is drawn in the films. Ratios of policies are computed "
    "from differences of logarithms: return the log.",
)
def probability(p: Pushes) -> Tensor:
    return torch.stack(parts(p)).sum(0).exp()
