"""Exercise average_kl of lesson 03, The KL constraint."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_03.shared import close

AverageFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def rows(rng: Generator, count: int, outcomes: int) -> Tensor:
    """`count` random distributions over `outcomes` outcomes, none of them impossible."""
    return torch.from_numpy(rng.dirichlet(np.full(outcomes, 2.0), size=count))


def two_policies(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """How often the old policy visits each of a few states [S]; an old and a new policy [S, A]."""
    states, actions = rng.integers(3, 6, size=2).tolist()
    return rows(rng, 1, states)[0], rows(rng, states, actions), rows(rng, states, actions)


def kl_of_tables(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of positive tables [..., A]."""
    return (p * (p / q).log()).sum(-1)


average_kl = Check("average_kl", minutes=8, inputs=two_policies)


@average_kl.property("The distance of a policy from itself should be 0.")
def nothing_to_itself(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, _ = two_policies(rng)
    return close(student(visits, pi_old, pi_old.clone()), 0)


@average_kl.property(
    "You count in bits, with the logarithm to base 2; tempting, because information theory does. The bounds and delta "
    "are in nats, with the natural logarithm."
)
def counts_in_nats(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    return not close(student(visits, pi_old, pi_new), visits @ kl_of_tables(pi_old, pi_new) / math.log(2))


@average_kl.property(
    "One state; the old policy tosses a fair coin, the new one takes the second action three times in four. KL(old || "
    "new) is (log 2 + log 2/3) / 2, half of log 4/3."
)
def a_fair_coin(student: AverageFunction, _rng: Generator) -> bool:
    visits, pi_old, pi_new = (as_float64(x) for x in ([1.0], [[0.5, 0.5]], [[0.25, 0.75]]))
    return close(student(visits, pi_old, pi_new), math.log(4 / 3) / 2)


@average_kl.property(
    "Two states, the first visited three times as often; only in the first one the policy changes, from a fair coin to "
    "(1/4, 3/4), by half of log 4/3. The mean over the visits is three quarters of that."
)
def three_quarters_of_it(student: AverageFunction, _rng: Generator) -> bool:
    visits = as_float64([0.75, 0.25])
    pi_old, pi_new = as_float64([[0.5, 0.5], [0.3, 0.7]]), as_float64([[0.25, 0.75], [0.3, 0.7]])
    return close(student(visits, pi_old, pi_new), 0.75 * math.log(4 / 3) / 2)


@average_kl.property(
    "Where all probabilities are positive, yours is not the mean over the visits of the sum over actions of pi_old "
    "log(pi_old / pi_new). Go through it term by term: what is summed, what is averaged, and with which weights?"
)
def ordinary_policies(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    return close(student(visits, pi_old, pi_new), visits @ kl_of_tables(pi_old, pi_new))


@average_kl.property("What the new policy does in a state that is never visited should not matter.")
def unseen_states_do_not_count(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    visits[2] = 0
    visits = visits / visits.sum()
    other = pi_new.clone()
    other[2] = rows(rng, 1, pi_new.shape[1])[0]
    return close(student(visits, pi_old, pi_new), student(visits, pi_old, other))


@average_kl.property(
    "An action that the old policy never takes should count 0, the limit of p log p for small p. In floating point "
    "0 * log(0) is not a number: torch.xlogy(p, x) is p log x with that one case put right."
)
def never_taken_before(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    pi_old[1, 0] = 0
    pi_old[1] /= pi_old[1].sum()
    kept = pi_old > 0
    ratios = torch.where(kept, pi_old, 1) / torch.where(kept, pi_new, 1)
    return close(student(visits, pi_old, pi_new), (visits[:, None] * pi_old * ratios.log()).sum())


@average_kl.property(
    "An action that neither policy takes should count 0 as well. The quotient of its probabilities is 0/0: take the "
    "logarithms of the two separately, each as xlogy(pi_old, .), or leave such actions out."
)
def never_taken_by_either(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    unused = torch.zeros(len(visits), 1, dtype=torch.float64)
    wider = (torch.cat([pi, unused], 1) for pi in (pi_old, pi_new))
    return close(student(visits, *wider), student(visits, pi_old, pi_new))


@average_kl.property(
    "If the new policy gives up an action that the old one takes, the old one's data can prove them different: the "
    "distance should be infinite."
)
def given_up(student: AverageFunction, rng: Generator) -> bool:
    visits, pi_old, pi_new = two_policies(rng)
    pi_new[1, 0] = 0
    pi_new[1] /= pi_new[1].sum()
    return float(student(visits, pi_old, pi_new)) == math.inf


@average_kl.mistake(
    "order",
    "Yours is KL(new || old); tempting, because the new policy is the one you ask about. The mean has to be over the "
    "old one's actions: those are in the data, and equation 9 is about KL(old || new).",
)
def the_other_way_round(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return visits @ kl_of_tables(pi_new, pi_old)


@average_kl.mistake(
    "conditioning",
    "You count all states alike; tempting, because a mean over a batch does so. There the states come up as often as "
    "they are visited. In a table each state has one row, so the visits have to be put in as weights.",
)
def counts_all_states_alike(_visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return kl_of_tables(pi_old, pi_new).mean()


@average_kl.mistake(
    "concept",
    "You return the largest KL of all states; tempting, because that is what the bound (9) asks for and equation 12 "
    "limits. Equation 13, which can be measured, has the mean over visited states.",
)
def takes_the_largest(_visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return kl_of_tables(pi_old, pi_new).max()


@average_kl.mistake(
    "order",
    "You average the policies over the states first, and compare the averages; tempting, because it is one KL instead "
    "of many. Two policies can do quite different things in each state and the same on average. Compare first.",
)
def averages_the_policies_first(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return kl_of_tables(visits @ pi_old, visits @ pi_new)


@average_kl.mistake(
    "concept",
    "This is the cross-entropy: the old policy's own entropy is not taken away. It is tempting, because the two have "
    "the same gradient in the new policy. But a constraint is about the value, which has to be 0 for no change.",
)
def leaves_the_entropy_in(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return -(visits[:, None] * pi_old * pi_new.log()).sum()


@average_kl.mistake(
    "sign",
    "The sign is wrong: the logarithm has new over old in it; tempting, because importance weights have. KL is the "
    "mean of minus the log weight, and is never negative.",
)
def puts_the_new_on_top(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return -(visits @ kl_of_tables(pi_old, pi_new))


@average_kl.mistake(
    "concept",
    "You take the mean of both directions; tempting, because a distance should be symmetric. KL is not, and what is "
    "known about the return (9) and what can be measured on old data is KL(old || new).",
)
def makes_it_symmetric(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return visits @ (kl_of_tables(pi_old, pi_new) + kl_of_tables(pi_new, pi_old)) / 2


@average_kl.mistake(
    "concept",
    "You return the quadratic picture, half of the squared changes over the old probabilities; tempting, because for "
    "small changes it is the same. For large ones it is not, and the constraint is about KL itself.",
)
def takes_the_quadratic_picture(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return visits @ ((pi_new - pi_old).square() / pi_old).sum(-1) / 2


@average_kl.mistake(
    "conditioning",
    "You take the mean over the whole table, states and actions alike; tempting, because .mean() does. Over the "
    "actions KL is a sum, which pi_old weighs already; over the states it is a mean, weighed by the visits.",
)
def averages_the_whole_table(_visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return (pi_old * (pi_old / pi_new).log()).mean()


@average_kl.mistake(
    "conditioning",
    "You add the states up and leave the visits out; tempting, because .sum() over the table is one word. Then a state "
    "that is hardly ever visited counts as much as the one the policy lives in, and more states make more distance.",
)
def adds_the_states_up(_visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return kl_of_tables(pi_old, pi_new).sum()


@average_kl.mistake(
    "conditioning",
    "The visits are in it, and then you divide by the number of states as well; tempting, because a mean divides by a "
    "count. The visits add up to 1: weighing with them is the mean already.",
)
def divides_once_more(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return (visits * kl_of_tables(pi_old, pi_new)).mean()


@average_kl.mistake(
    "concept",
    "You return the total variation, half of the summed absolute changes; tempting, because lesson 01 starts with it. "
    "Pinsker's inequality ties the two together, but equation 13 is about KL, which knows that rare actions matter.",
)
def takes_the_total_variation(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return visits @ (pi_new - pi_old).abs().sum(-1) / 2


@average_kl.mistake(
    "conditioning",
    "You average the log ratio over the actions with equal weights; tempting, because .mean() is at hand. An action "
    "counts as often as the old policy takes it.",
)
def counts_all_actions_alike(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return visits @ (pi_old / pi_new).log().mean(-1)
