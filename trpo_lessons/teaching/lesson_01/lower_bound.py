"""Exercise lower_bound of lesson 01, The policy-improvement bound."""

from __future__ import annotations

from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, as_float64, evaluate_policy, random_policy
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_01.shared import PolicyFunction, close, mdp_and_two_policies


def also_with_costs(function: PolicyFunction, mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> tuple[Any, Any]:
    """The answer, and that for the same problem with every reward turned into a cost.

    One of the two has its largest advantage above zero and the other below: no answer is right by luck.
    """
    costs = TabularMDP(mdp.P, -mdp.r, mdp.rho0, mdp.gamma)
    return function(mdp, pi_old, pi_new), function(costs, pi_old, pi_new)


lower_bound = Check("lower_bound", minutes=12, inputs=mdp_and_two_policies, behavior=also_with_costs)


@lower_bound.property("When the new policy is the old one there is nothing to pay: the bound should be eta(pi_old).")
def bound_touches_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, _ = mdp_and_two_policies(rng)
    return close(student(mdp, pi_old, pi_old), evaluate_policy(mdp, pi_old).eta)


@lower_bound.property("It should be a lower bound: for some policies your value is above eta(pi_new).")
def bound_is_below_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, other = mdp_and_two_policies(rng)
    mixtures = [ib.mixture_policy(pi_old, other, alpha) for alpha in (1.0, 0.1, 0.01, 0.001)]
    return all(bool(student(mdp, pi_old, pi) <= evaluate_policy(mdp, pi).eta + 1e-9) for pi in mixtures)


@lower_bound.property(
    "With gamma = 0 nothing comes later: there is nothing to pay, and the bound should be eta(pi_new)."
)
def bound_without_a_future_is_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, pi_new = mdp_and_two_policies(rng)
    myopic = TabularMDP(mdp.P, mdp.r, mdp.rho0, 0.0)
    return close(student(myopic, pi_old, pi_new), evaluate_policy(myopic, pi_new).eta)


def penalties(student: PolicyFunction, mdp: TabularMDP, pi_old: Tensor, news: list[Tensor]) -> Tensor:
    """What the student takes off L, for each new policy, over the largest KL divergence: should be C, [N]."""
    taken = [float(ib.surrogate_objective(mdp, pi_old, pi) - student(mdp, pi_old, pi)) for pi in news]
    return as_float64(taken) / torch.stack([ib.max_kl(pi_old, pi) for pi in news])


@lower_bound.property(
    "What you take off L should grow in proportion to the largest KL divergence over the states: for two new policies, "
    "yours is in another proportion. Which distance do you take, of which states, and is it squared, or under a root?"
)
def penalty_is_proportional_to_kl(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, one = mdp_and_two_policies(rng)
    factors = penalties(student, mdp, pi_old, [one, random_policy(mdp, rng), ib.mixture_policy(pi_old, one, 0.3)])
    return close(factors, factors[:1].expand(3), 1e-6)


@lower_bound.property(
    "What you take off L is in proportion to the largest KL divergence, as it should be, but the factor is not "
    "C = 2 epsilon gamma / (1 - gamma)^2 with epsilon the largest |A| of the old policy. Compare each part of it."
)
def penalty_has_the_factor_c(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, pi_new = mdp_and_two_policies(rng)
    C = ib.penalty_coefficient(ib.largest_advantage(mdp, pi_old), mdp.gamma)
    return close(penalties(student, mdp, pi_old, [pi_new]), C, 1e-6)


def minus_penalty(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor, epsilon: Tensor, distance: Tensor) -> Tensor:
    """L less the penalty, with the given epsilon and distance."""
    return ib.surrogate_objective(mdp, pi_old, pi_new) - ib.penalty_coefficient(epsilon, mdp.gamma) * distance


@lower_bound.mistake(
    "order",
    "You have the KL divergence the wrong way round, KL(new || old); tempting, because the new policy is the one "
    "you are working on. Equation 9 averages log(old/new) over the old policy's actions, the ones the data came "
    "from.",
)
def reverses_kl(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), ib.max_kl(pi_new, pi_old))


@lower_bound.mistake(
    "concept",
    "You average the KL divergence over the states; tempting, because that is what TRPO does in practice. The "
    "guarantee needs the worst state: an average says nothing about a state the old policy rarely visits and the "
    "new one may.",
)
def averages_kl(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    mean = ib.kl_divergence(pi_old, pi_new).mean()
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), mean)


@lower_bound.mistake(
    "concept",
    "Your epsilon is max over s of |E[A(s, a)]| with actions of the new policy; tempting, because Theorem 1 prints "
    "it so. That epsilon shrinks with the step, and the bound breaks: it must be max over s and a of |A(s, a)|, as "
    "in Algorithm 1.",
)
def takes_the_printed_epsilon(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    epsilon = ib.largest_expected_advantage(mdp, pi_old, pi_new)
    return minus_penalty(mdp, pi_old, pi_new, epsilon, ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "sign",
    "Your epsilon is the largest advantage, without the absolute value; tempting, because large advantages are what "
    "we look for. What the new policy may lose elsewhere hangs on how bad an action can be just as much.",
)
def forgets_the_absolute_value(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return minus_penalty(mdp, pi_old, pi_new, evaluate_policy(mdp, pi_old).A.max(), ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "sign",
    "You add the penalty; tempting, because the paper does: it counts costs and bounds them from above. Of a return "
    "we want to know the least, so the penalty is subtracted.",
)
def adds_the_penalty(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    epsilon = ib.largest_advantage(mdp, pi_old)
    return minus_penalty(mdp, pi_old, pi_new, epsilon, -ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "concept",
    "You pay for the squared total variation where the KL divergence belongs; tempting, because equation 8 has the "
    "same constant. For general policies the squared total variation costs 4 epsilon, and Pinsker turns only half "
    "of that into KL.",
)
def pays_for_total_variation(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    alpha = ib.max_total_variation(pi_old, pi_new)
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), alpha**2)


@lower_bound.mistake(
    "constant",
    "You divide by 1 - gamma once; tempting, because that is the horizon over which rewards count. The square is "
    "needed: a step that parts the policies changes all later states, and every one of them all that follows.",
)
def divides_by_the_horizon_once(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    epsilon = ib.largest_advantage(mdp, pi_old) * (1 - mdp.gamma)
    return minus_penalty(mdp, pi_old, pi_new, epsilon, ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "constant",
    "You pay 4 epsilon for the KL divergence; tempting, because the paper's later version has that constant. It is a "
    "bound, but not (9): Pinsker's inequality gives back half of it.",
)
def pays_twice(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return minus_penalty(mdp, pi_old, pi_new, 2 * ib.largest_advantage(mdp, pi_old), ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "concept",
    "You return the bound with 4 epsilon and the squared total variation; tempting, because it is true and came first. "
    "Equation 9 goes on from there, by Pinsker's inequality, to the KL divergence.",
)
def stops_at_total_variation(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return ib.total_variation_bound(mdp, pi_old, pi_new)


@lower_bound.mistake(
    "concept",
    "You average the KL divergence over the old policy's visits; tempting, because samples show it so, and TRPO "
    "constrains it. It is small where only a rare state changes, and the new policy may make that state a common one: "
    "the guarantee takes the largest.",
)
def averages_kl_over_visits(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    share = (1 - mdp.gamma) * evaluate_policy(mdp, pi_old).rho
    mean = share @ ib.kl_divergence(pi_old, pi_new)
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), mean)


@lower_bound.mistake(
    "constant",
    "You add the KL divergences of all states; tempting, because .sum() over the whole table is one call. Sum over the "
    "actions of a state, and of the states take the one with the largest.",
)
def sums_kl_over_states(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    total = ib.kl_divergence(pi_old, pi_new).sum()
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), total)


@lower_bound.mistake(
    "constant",
    "You take the mean over the actions where the KL divergence sums over them; tempting, because it is an average of "
    "log ratios. Its weights are the old probabilities, and they are in it already.",
)
def averages_kl_over_actions(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    kl = (pi_old * (pi_old / pi_new).log()).mean(-1).amax()
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), kl)


@lower_bound.mistake(
    "sign",
    "Your log ratio is upside down, log(new/old), and your divergence below zero: you pay nothing, and are paid; "
    "tempting, because importance ratios are new over old. KL(old || new) averages log(old/new).",
)
def turns_the_ratio_around(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    negative = (pi_old * (pi_new / pi_old).log()).sum(-1).amax()
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), negative)


@lower_bound.mistake(
    "concept",
    "Your epsilon is the largest advantage under the new policy; tempting, because the new policy is the one the bound "
    "is about. It has to be known before the new policy is tried: epsilon belongs to pi_old's advantages.",
)
def takes_the_new_policy_s_advantages(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_new), ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "concept",
    "You leave gamma out of the numerator; tempting, because 1/(1 - gamma) squared seems to hold it all. The first "
    "step is taken in the same state by both policies: what may go wrong begins one step later, and gamma stands for "
    "that.",
)
def forgets_gamma(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    epsilon = ib.largest_advantage(mdp, pi_old) / mdp.gamma
    return minus_penalty(mdp, pi_old, pi_new, epsilon, ib.max_kl(pi_old, pi_new))


@lower_bound.mistake(
    "concept",
    "You subtract the penalty from eta(pi_old); tempting, because that is the return you have. The bound starts from "
    "L, which adds what the new actions promise; without it no step would ever be worth its price.",
)
def leaves_out_the_promise(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    promise = ib.surrogate_objective(mdp, pi_old, pi_new) - evaluate_policy(mdp, pi_old).eta
    full = minus_penalty(mdp, pi_old, pi_new, ib.largest_advantage(mdp, pi_old), ib.max_kl(pi_old, pi_new))
    return full - promise


@lower_bound.mistake(
    "concept",
    "You return eta(pi_new) itself; tempting, because nothing is a tighter bound. But it can be known only after the "
    "new policy has been run: a bound is made of what is known of the old one.",
)
def knows_the_answer(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:  # noqa: ARG001
    return evaluate_policy(mdp, pi_new).eta


@lower_bound.mistake(
    "sign",
    "Your epsilon is the largest loss, minus the smallest advantage; tempting, because losses are what we fear. An "
    "advantage that is far above 0 counts as much: where it is large, going there less often costs the most.",
)
def fears_losses_only(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    return minus_penalty(mdp, pi_old, pi_new, -evaluate_policy(mdp, pi_old).A.min(), ib.max_kl(pi_old, pi_new))
