"""Exercise softmax_log_prob of lesson 00, Start here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check


def logits_and_actions(rng: Generator) -> tuple[Tensor, Tensor]:
    """Logits [5, 3] and an action for each row."""
    return torch.from_numpy(rng.normal(size=(5, 3))), torch.from_numpy(rng.integers(3, size=5))


softmax_log_prob = Check("softmax_log_prob", minutes=8, inputs=logits_and_actions)
LogProbFunction = Callable[[Tensor, Tensor], Tensor]


@softmax_log_prob.property("The probabilities of all actions in a state should add up to 1.")
def probabilities_add_up(student: LogProbFunction, rng: Generator) -> bool:
    logits = torch.from_numpy(rng.normal(size=(1, 4))).expand(4, 4).clone()
    return abs(float(student(logits, torch.arange(4)).exp().sum()) - 1) < 1e-10


@softmax_log_prob.property("Adding the same number to all logits of a state should change nothing.")
def constants_do_nothing(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(3, 4))), torch.from_numpy(rng.integers(4, size=3))
    return bool(torch.allclose(student(logits, actions), student(logits + 5.0, actions), rtol=0, atol=1e-10))


@softmax_log_prob.property("What one state's logits are should not matter to the other states.")
def states_are_independent(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(3, 4))), torch.from_numpy(rng.integers(4, size=3))
    other = logits.clone()
    other[0] = torch.from_numpy(rng.normal(size=4))
    return bool(torch.allclose(student(logits, actions)[1:], student(other, actions)[1:], rtol=0, atol=1e-10))


@softmax_log_prob.property("A batch may hold a single state.")
def one_state_is_a_batch(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = torch.from_numpy(rng.normal(size=(2, 4))), torch.from_numpy(rng.integers(4, size=2))
    return bool(torch.allclose(student(logits[:1], actions[:1]), student(logits, actions)[:1], rtol=0, atol=1e-10))


@softmax_log_prob.property(
    "Your exponentials overflow: logits near 1000 give another answer than the same logits less 1000. It is tempting "
    "to write log(exp / sum of exp) as in the formula; subtract the row's largest logit first, or use torch.logsumexp."
)
def large_logits_do_not_overflow(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = logits_and_actions(rng)
    return bool(torch.allclose(student(logits + 1000.0, actions), student(logits, actions), rtol=0, atol=1e-9))


@softmax_log_prob.property(
    "The states' logits may be of unlike size, and then your numbers change: one state near 1000 spoils another near "
    "0. It is tempting to subtract the largest logit of the whole table; take each row's own."
)
def each_state_has_its_own_size(student: LogProbFunction, rng: Generator) -> bool:
    logits, actions = logits_and_actions(rng)
    apart = logits + torch.tensor([[0.0], [1000.0], [-1000.0], [500.0], [0.0]], dtype=torch.float64)
    return bool(torch.allclose(student(apart, actions), student(logits, actions), rtol=0, atol=1e-9))


@softmax_log_prob.property(
    "An action 800 below the best logit has a log probability of -800, and yours is another number. It is tempting to "
    "take the logarithm of a softmax; but such a probability is 0 in floating point, and its logarithm minus infinity. "
    "Subtract log-sum-exp from the logit, and never form the probability."
)
def unlikely_actions_keep_their_log(student: LogProbFunction, rng: Generator) -> bool:
    best = torch.from_numpy(rng.normal(size=(3, 1)))
    logits = torch.cat([best, best - 800.0, best - 900.0], dim=1)
    expected = torch.tensor([0.0, -800.0, -900.0], dtype=torch.float64)
    return bool(torch.allclose(student(logits, torch.arange(3)), expected, rtol=1e-12, atol=1e-12))


@softmax_log_prob.mistake(
    "conditioning",
    "You normalize over the states instead of the actions. It is tempting because dim=0 comes first; but pi(a|s) is a "
    "distribution over actions in each state, so the sum runs along dim=1.",
)
def normalizes_over_states(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=0)[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "sign",
    "You return minus the log probability. It is tempting because that is what a cross-entropy loss minimizes; here "
    "the log probability itself is asked for, and it is never above 0.",
)
def cross_entropy(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, actions, reduction="none")


@softmax_log_prob.mistake(
    "concept",
    "You return probabilities, not their logarithms. It is tempting because softmax ends there; but a trajectory's "
    "probability is a product, and sums of logarithms are what stays accurate.",
)
def plain_probabilities(logits: Tensor, actions: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "concept",
    "You subtract the largest logit and stop there. It is tempting because that is the step that prevents overflow; "
    "the logarithm of the sum of the exponentials still has to be subtracted.",
)
def never_normalized(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.max(dim=1).values


@softmax_log_prob.mistake(
    "concept",
    "You return the logits of the actions as they are. It is tempting because they are the only numbers of the action; "
    "but a logit means nothing alone: what the other actions' logits are decides the probability.",
)
def logits_themselves(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions]


@softmax_log_prob.mistake(
    "conditioning",
    "You normalize over the whole table: all states together share a probability of 1. It is tempting because .sum() "
    "without dim is shorter; but every state has a distribution of its own, so sum along dim=1.",
)
def normalizes_over_everything(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.flatten().logsumexp(0)


@softmax_log_prob.mistake(
    "constant",
    "You divide by the mean of the exponentials instead of their sum. It is tempting because mean and sum differ by a "
    "constant only; but then the probabilities of the actions add up to their number, not to 1.",
)
def averages_the_exponentials(logits: Tensor, actions: Tensor) -> Tensor:
    return logits[torch.arange(len(actions)), actions] - logits.exp().mean(1).log()


@softmax_log_prob.mistake(
    "indexing",
    "You return the log probability of the most likely action in each state. It is tempting because the largest entry "
    "of a row is easy to take; asked is the action that was taken, likely or not.",
)
def most_likely_action(logits: Tensor, actions: Tensor) -> Tensor:  # noqa: ARG001
    return torch.log_softmax(logits, dim=1).max(dim=1).values
