"""Exercise surrogate of lesson 01, The policy-improvement bound."""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, evaluate_policy, random_policy
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_01.shared import PolicyFunction, close, mdp_and_two_policies

surrogate = Check("surrogate", minutes=8, inputs=mdp_and_two_policies)


@surrogate.property("When the new policy is the old one, L should be its eta: nothing has changed.")
def surrogate_touches_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, _ = mdp_and_two_policies(rng)
    return close(student(mdp, pi_old, pi_old), evaluate_policy(mdp, pi_old).eta)


@surrogate.property(
    "L should be linear in the new policy: halfway between two policies it should be the mean of their values. The "
    "new policy may appear in one place only."
)
def surrogate_is_linear(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, one = mdp_and_two_policies(rng)
    other = random_policy(mdp, rng)
    mean = (student(mdp, pi_old, one) + student(mdp, pi_old, other)) / 2
    return close(student(mdp, pi_old, (one + other) / 2), mean)


@surrogate.property(
    "For small steps L should change as eta does, by equation 4: a thousandth of the way to another policy yours gains "
    "another amount. Which visits, which advantages and which actions does each factor belong to?"
)
def surrogate_has_the_slope_of_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, other = mdp_and_two_policies(rng)
    gain, truth = ({}, {})
    for h in (1e-3, 2e-3):
        near = ib.mixture_policy(pi_old, other, h)
        gain[h] = float(student(mdp, pi_old, near) - student(mdp, pi_old, pi_old)) / h
        truth[h] = float(evaluate_policy(mdp, near).eta - evaluate_policy(mdp, pi_old).eta) / h
    # Eta's slope at 0, without its curvature.
    return abs(gain[1e-3] - (2 * truth[1e-3] - truth[2e-3])) < 1e-3 * (1 + abs(truth[1e-3]))


@surrogate.property(
    "The old policy may never take an action that the new one takes, and then your value is another one. A ratio "
    "pi_new / pi_old is tempting because samples need it; here every action is summed over, with pi_new alone."
)
def surrogate_allows_new_actions(student: PolicyFunction, rng: Generator) -> bool:
    mdp, _, pi_new = mdp_and_two_policies(rng)
    always_first = torch.eye(mdp.num_actions, dtype=torch.float64)[[0] * mdp.num_states]
    return close(student(mdp, always_first, pi_new), ib.surrogate_objective(mdp, always_first, pi_new))


@surrogate.property("With gamma = 0 nothing comes later, and L should be eta(pi_new) exactly.")
def surrogate_without_a_future_is_eta(student: PolicyFunction, rng: Generator) -> bool:
    mdp, pi_old, pi_new = mdp_and_two_policies(rng)
    myopic = TabularMDP(mdp.P, mdp.r, mdp.rho0, 0.0)
    return close(student(myopic, pi_old, pi_new), evaluate_policy(myopic, pi_new).eta)


@surrogate.mistake(
    "concept",
    "You weigh the states with the new policy's visits. That is equation 2, so your value is eta(pi_new) itself; "
    "tempting, because it is even better than L. But nobody knows those visits before the new policy has been run. "
    "L takes the rho of pi_old, which is what the data shows.",
)
def weighs_with_new_visits(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old, new = evaluate_policy(mdp, pi_old), evaluate_policy(mdp, pi_new)
    return old.eta + new.rho @ (pi_new * old.A).sum(-1)


@surrogate.mistake(
    "concept",
    "Your L is eta(pi_old) whatever the new policy does: you average advantages over the actions of their own policy, "
    "and that is zero in every state. It is tempting to take both from pi_old, or both from pi_new. Advantages are "
    "pi_old's; the actions are the one thing that L takes from pi_new.",
)
def averages_over_old_actions(mdp: TabularMDP, pi_old: Tensor, _pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + old.rho @ (pi_old * old.A).sum(-1)


@surrogate.mistake(
    "order",
    "You have the two policies in each other's place: this is L around pi_new, evaluated at pi_old; tempting, "
    "because the paper's notation has the old policy as a subscript. Visits, advantages and eta are those of "
    "pi_old, the first argument; actions are pi_new's.",
)
def swaps_the_policies(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    new = evaluate_policy(mdp, pi_new)
    return new.eta + new.rho @ (pi_old * new.A).sum(-1)


@surrogate.mistake(
    "concept",
    "You use Q where the advantage A belongs; tempting, because both rank the actions of a state in the same way. "
    "But Q holds what the old policy earns anyway, and that is already in eta(pi_old): you count it twice.",
)
def uses_action_values(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + old.rho @ (pi_new * old.Q).sum(-1)


@surrogate.mistake(
    "constant",
    "Your visits add up to 1, as for a probability distribution; tempting, because most code samples states that "
    "way. In equation 3 they add up to 1/(1 - gamma): the gain of a state is collected once for every discounted "
    "visit.",
)
def normalizes_the_visits(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + (1 - mdp.gamma) * old.rho @ (pi_new * old.A).sum(-1)


@surrogate.mistake(
    "concept",
    "You return the gain without eta(pi_old); tempting, because a constant does not matter when L is maximized. It "
    "does when L is compared with eta: a bound on the return has to start from the return you have.",
)
def leaves_out_eta(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.rho @ (pi_new * old.A).sum(-1)


@surrogate.mistake(
    "concept",
    "You weigh the states with rho0, where a walk starts; tempting, because eta is V averaged over rho0. But the new "
    "actions pay on every visit to a state: the weight is rho.",
)
def surrogate_with_first_states(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + mdp.rho0 @ (pi_new * old.A).sum(-1)


@surrogate.mistake(
    "concept",
    "Every state counts the same, whether it is visited or not; tempting, because .sum() over the whole table is one "
    "call. In equation 3 a state's expected advantage is weighed with rho.",
)
def surrogate_without_visits(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + (pi_new * old.A).sum()


@surrogate.mistake(
    "constant",
    "You take the mean over the actions where their sum belongs; tempting, because an expectation is a mean. But "
    "pi_new already holds the weights of that mean: probabilities times advantages are added up.",
)
def averages_over_the_actions(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + old.rho @ (pi_new * old.A).mean(-1)


@surrogate.mistake(
    "concept",
    "You start from eta(pi_new), which L is there to predict; tempting, because L is about the new policy. It starts "
    "from eta(pi_old), which is known, and adds what the new actions promise.",
)
def starts_from_the_new_return(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return evaluate_policy(mdp, pi_new).eta + old.rho @ (pi_new * old.A).sum(-1)


@surrogate.mistake(
    "conditioning",
    "You sum ratios pi_new / pi_old times advantages without the weights pi_old; tempting, because L is written so for "
    "samples. There the old policy draws the actions, which is the missing factor: pi_old times the ratio is pi_new.",
)
def sums_unweighted_ratios(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    old = evaluate_policy(mdp, pi_old)
    return old.eta + old.rho @ (pi_new / pi_old * old.A).sum(-1)
