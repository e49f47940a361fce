"""Checks of lesson 01, The policy-improvement bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, as_float64, evaluate_policy, garnet, random_policy
from trpo_lessons.teaching.checks import Check

PolicyFunction = Callable[[TabularMDP, Tensor, Tensor], Tensor]


def random_mdp(rng: Generator) -> TabularMDP:
    """A small MDP with a random discount, four to six states, and first states of unlike probability."""
    mdp = garnet(int(rng.integers(4, 7)), 3, 2, float(rng.uniform(0.5, 0.9)), int(rng.integers(2**32)))
    return TabularMDP(mdp.P, mdp.r, torch.from_numpy(rng.dirichlet(np.ones(mdp.num_states))), mdp.gamma)


def mdp_and_two_policies(rng: Generator) -> tuple[TabularMDP, Tensor, Tensor]:
    """A small MDP, an old and a new policy [S, A], with all probabilities positive."""
    mdp = random_mdp(rng)
    return mdp, random_policy(mdp, rng, 2.0), random_policy(mdp, rng, 2.0)


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to rounding, or within `tolerance`, absolute and relative."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=tolerance, atol=tolerance))


# ---- counterexample --------------------------------------------------------------------------------------------------

ROUNDING = 1e-9


def mdp_and_policy(rng: Generator) -> tuple[TabularMDP, Tensor]:
    """A small MDP and a policy [S, A]."""
    mdp = random_mdp(rng)
    return mdp, random_policy(mdp, rng, 2.0)


def judged(function: Callable[[TabularMDP, Tensor], Tensor], mdp: TabularMDP, pi_old: Tensor) -> str:
    """What kind of answer this is; only "broken" is a counterexample."""
    pi_new = function(mdp, pi_old)
    if pi_new.shape != pi_old.shape or pi_new.dtype != pi_old.dtype:
        return "another kind of table"
    if not pi_new.isfinite().all():
        return "not finite"
    try:
        lie = float(ib.surrogate_objective(mdp, pi_old, pi_new) - evaluate_policy(mdp, pi_new).eta)
    except ValueError:
        return "no policy"
    if torch.equal(pi_new, pi_old):
        return "the old policy"
    if abs(lie) < ROUNDING:
        return "rounding"
    if lie < 0:
        return "too pessimistic"
    penalty = float(ib.surrogate_objective(mdp, pi_old, pi_new) - ib.printed_theorem_bound(mdp, pi_old, pi_new))
    return "broken" if lie > penalty + ROUNDING else "held"


counterexample = Check("counterexample", minutes=15, inputs=mdp_and_policy, behavior=judged, unique=False)


@counterexample.property(
    "Not on every problem drawn does your policy break the printed theorem. Far from the old policy it holds, and in "
    "about half of all directions L is too pessimistic, so that any bound holds. Search: try directions, with a small "
    "step, until one breaks it by more than 1e-9."
)
def breaks_the_theorem(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    # A direction that is fixed beforehand breaks it on every other problem: four a draw leave no room for luck.
    return all(judged(student, *mdp_and_policy(rng)) == "broken" for _ in range(4))


def first_judged(wanted: str, mdp: TabularMDP, pi_old: Tensor, alpha: float) -> Tensor:
    """The first random direction in which a step of `alpha` is judged as `wanted`."""
    rng = np.random.default_rng(1)
    while True:
        pi_new = ib.mixture_policy(pi_old, random_policy(mdp, rng, 0.3), alpha)
        if judged(lambda *_, pi_new=pi_new: pi_new, mdp, pi_old) == wanted:
            return pi_new


@counterexample.mistake(
    "concept",
    "For your policy L promises too much, but the printed penalty still covers the lie; tempting, because a large "
    "step makes a large lie. Compare the orders: the lie shrinks with the square of the step, this penalty with its "
    "cube, so look where the cube is the smaller of the two.",
)
def steps_too_far(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return first_judged("held", mdp, pi_old, 1.0)


@counterexample.mistake(
    "sign",
    "For your policy eta is above L, so every lower bound that starts from L holds; tempting, because L is wrong "
    "there too. You need a lie in the other direction: eta below L.",
)
def finds_l_too_pessimistic(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return first_judged("too pessimistic", mdp, pi_old, 0.01)


@counterexample.mistake(
    "concept",
    "You return the old policy; tempting, because the smaller the step, the worse the printed bound does. But at a "
    "step of zero L, the bound and eta are all the same number.",
)
def stands_still(_mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return pi_old.clone()


@counterexample.mistake(
    "numerics",
    "Your step is so small that L and eta differ by less than 1e-9; tempting, because smaller steps break the bound "
    "by a larger factor. At that size you compare rounding errors, which prove nothing. Take a larger step.",
)
def steps_too_little(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return ib.mixture_policy(pi_old, random_policy(mdp, np.random.default_rng(1)), 1e-7)


@counterexample.mistake(
    "indexing",
    "What you return is no policy: a row does not add up to 1, or holds a negative number; tempting, because adding "
    "a small random table is the first way to change a policy. Use mixture_policy, or add rows that sum to zero.",
)
def adds_noise(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return pi_old + 0.01 * random_policy(mdp, np.random.default_rng(1))


# ---- surrogate -------------------------------------------------------------------------------------------------------

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


# ---- policy_gradient -------------------------------------------------------------------------------------------------


def mdp_and_logits(rng: Generator) -> tuple[TabularMDP, Tensor]:
    """A small MDP and the logits [S, A] of a softmax policy."""
    mdp = random_mdp(rng)
    return mdp, torch.from_numpy(rng.normal(size=(mdp.num_states, mdp.num_actions)))


policy_gradient = Check("policy_gradient", minutes=12, inputs=mdp_and_logits)


@policy_gradient.property(
    "In every state the entries should add up to 0: adding a constant to all logits of a state changes nothing."
)
def gradient_adds_up_to_zero(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    mdp, logits = mdp_and_logits(rng)
    return close(student(mdp, logits).sum(-1), torch.zeros(mdp.num_states, dtype=torch.float64))


@policy_gradient.property("A tiny step along your gradient should raise eta by its squared length times the step.")
def gradient_predicts_eta(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    mdp, logits = mdp_and_logits(rng)
    g, h = student(mdp, logits), 1e-4
    up, down = (evaluate_policy(mdp, (logits + sign * h * g).softmax(-1)).eta for sign in (1, -1))
    return bool(abs((up - down) / (2 * h) - g.square().sum()) < 1e-4 * g.square().sum())


@policy_gradient.property(
    "Logits may be large, and then you return something that is not a number; tempting, because exp(logits) over its "
    "sum is what softmax means. It overflows near 710: use softmax, which subtracts the largest logit first."
)
def gradient_takes_large_logits(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    mdp, logits = mdp_and_logits(rng)
    return close(student(mdp, logits + 1000.0), student(mdp, logits))


@policy_gradient.property(
    "Your function switches on requires_grad of the caller's logits; tempting, because backward() then fills .grad. "
    "Whoever called it did not ask for that: write the derivative down, or differentiate a copy."
)
def gradient_leaves_logits_alone(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    mdp, logits = mdp_and_logits(rng)
    student(mdp, logits)
    return not logits.requires_grad and logits.grad is None


@policy_gradient.mistake(
    "concept",
    "You leave the visits out: every state counts the same; tempting, because pi times A is the gradient of one state. "
    "What a state contributes to eta is collected once a visit, so it is weighed with rho.",
)
def leaves_out_the_visits(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    return pi * evaluate_policy(mdp, pi).A


@policy_gradient.mistake(
    "constant",
    "Your visits add up to 1; tempting, because most code samples states that way. Those of equations 2 and 3 add up "
    "to 1/(1 - gamma), so your gradient is 1 - gamma times the gradient of eta: the right direction, another length.",
)
def normalizes_rho(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return (1 - mdp.gamma) * found.rho[:, None] * pi * found.A


@policy_gradient.mistake(
    "constant",
    "You take the mean over the states where their sum belongs; tempting, because losses are means. Eta adds up over "
    "visits, and rho holds their number already.",
)
def averages_over_states(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return found.rho[:, None] * pi * found.A / len(logits)


@policy_gradient.mistake(
    "concept",
    "You differentiate log pi(a|s) and leave out the weight pi(a|s) that goes with it; tempting, because code has "
    "grad log pi. There the samples come from pi, which is the factor you lack: pi times grad log pi is grad pi.",
)
def differentiates_log_probabilities(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return found.rho[:, None] * (1 - pi) * found.A


@policy_gradient.mistake(
    "concept",
    "You compare an action with the plain mean of Q over the actions; tempting, because A is Q less an average. That "
    "average is the policy's own, V = sum of pi Q: an action that is hardly ever taken hardly counts in it.",
)
def compares_with_the_plain_mean(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return found.rho[:, None] * pi * (found.Q - found.Q.mean(-1, keepdim=True))


@policy_gradient.mistake(
    "concept",
    "You weigh the states with rho0, where an episode starts; tempting, because eta is an average over rho0. But a "
    "change of the policy in a state pays on every visit to it: the weight is rho.",
)
def weighs_with_first_states(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    return mdp.rho0[:, None] * pi * evaluate_policy(mdp, pi).A


@policy_gradient.mistake(
    "concept",
    "You return the derivative in the probabilities pi(a|s), not in the logits; tempting, because L is linear in pi "
    "and the derivative is read off. Softmax adds a factor: the probability of an action moves in proportion to "
    "itself.",
)
def differentiates_in_probabilities(mdp: TabularMDP, logits: Tensor) -> Tensor:
    found = evaluate_policy(mdp, logits.softmax(-1))
    return found.rho[:, None] * found.A


@policy_gradient.mistake(
    "concept",
    "You use Q where A belongs; tempting, because the policy gradient theorem is often stated with Q. There it "
    "stands beside the gradient of pi, which adds up to zero over the actions. With softmax written out as rho pi "
    "times something, that something has to be A.",
)
def multiplies_by_action_values(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return found.rho[:, None] * pi * found.Q


@policy_gradient.mistake(
    "concept",
    "You let a logit move the probability of its own action only, by pi (1 - pi); tempting, because that is the "
    "diagonal of the softmax derivative. Raising one logit also lowers every other probability of that state: sum "
    "over all of them.",
)
def forgets_the_other_actions(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return found.rho[:, None] * pi * (1 - pi) * found.A


@policy_gradient.mistake(
    "sign",
    "Your gradient points downhill; tempting, because the paper's eta is a cost. Here eta is a return, and its "
    "gradient raises the probability of actions with a positive advantage.",
)
def points_downhill(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    return -found.rho[:, None] * pi * found.A


@policy_gradient.mistake(
    "concept",
    "Your rho leaves out the discount: you weigh with how often a state is visited in the long run; tempting, "
    "because that is what averaging over collected data does. The gradient of a discounted eta has discounted "
    "visits.",
)
def weighs_with_the_long_run(mdp: TabularMDP, logits: Tensor) -> Tensor:
    pi = logits.softmax(-1)
    patient = TabularMDP(mdp.P, mdp.r, mdp.rho0, 1 - 1e-9)
    share = evaluate_policy(patient, pi).rho * 1e-9
    return share[:, None] / (1 - mdp.gamma) * pi * evaluate_policy(mdp, pi).A


# ---- coupling --------------------------------------------------------------------------------------------------------


def two_distributions(rng: Generator) -> tuple[Tensor, Tensor]:
    """Two distributions over four actions."""
    return torch.from_numpy(rng.dirichlet(np.ones(4))), torch.from_numpy(rng.dirichlet(np.ones(4)))


# What happens when the actions differ is free, as long as the marginals are right: several answers are good.
coupling = Check("coupling", minutes=15, inputs=two_distributions, unique=False)
Coupling = Callable[[Tensor, Tensor], Tensor]


@coupling.property("The table should be a joint distribution: no entry below 0, and all of them together 1.")
def coupling_is_a_distribution(student: Coupling, rng: Generator) -> bool:
    joint = student(*two_distributions(rng))
    return bool(joint.min() >= -1e-12) and close(joint.sum(), 1.0, 1e-6)


@coupling.property("Summed over its columns, row a of the table should be p(a): the first action follows p.")
def coupling_has_rows_p(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).sum(1), p, 1e-6)


@coupling.property("Summed over its rows, column b of the table should be q(b): the second action follows q.")
def coupling_has_columns_q(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).sum(0), q, 1e-6)


@coupling.property(
    "The two actions should be equal as often as possible. Both can be a at most min(p(a), q(a)) of the time; your "
    "diagonal holds less."
)
def coupling_agrees_as_often_as_possible(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).diagonal(), torch.minimum(p, q), 1e-6)


@coupling.property(
    "Two distributions may be nearly the same, or hold a probability of one in a million million; then your table is "
    "off. Adding a small number to a divisor is tempting as a guard against 0, and so is rounding. Here nothing is "
    "divided by 0, for p and q are not equal."
)
def coupling_of_neighbors(student: Coupling, rng: Generator) -> bool:
    p, other = two_distributions(rng)
    skewed = torch.tensor([1e-12, 1e-6, 0.3, 0.0], dtype=torch.float64)
    skewed[3] = 1 - skewed.sum()
    pairs = [(p, (1 - 1e-7) * p + 1e-7 * other), (skewed, other), (p, skewed)]
    return all(is_maximal(student(p.clone(), q.clone()), p, q, 1e-6) for p, q in pairs)


def is_maximal(joint: Tensor, p: Tensor, q: Tensor, rtol: float) -> bool:
    """Whether `joint` is a maximal coupling, measured by how far p and q are apart."""
    apart = float((p - q).abs().sum()) / 2
    rest = joint - torch.diag(joint.diagonal())
    rows, columns = p - torch.minimum(p, q), q - torch.minimum(p, q)
    off = torch.stack([rest.sum(1) - rows, rest.sum(0) - columns, joint.diagonal() - torch.minimum(p, q)])
    return bool(joint.min() >= -1e-15 and off.abs().max() <= rtol * apart + 1e-15)


@coupling.property("There may be two actions only, and the table is then 2 by 2.")
def coupling_of_coins(student: Coupling, rng: Generator) -> bool:
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(2))) for _ in range(2))
    return is_maximal(student(p.clone(), q.clone()), p, q, 1e-9)


@coupling.mistake(
    "concept",
    "You draw the two actions independently; tempting, because the marginals are then right. But they differ most "
    "of the time, even where p and q are equal. Let them share as much as both have.",
)
def independent(p: Tensor, q: Tensor) -> Tensor:
    return torch.outer(p, q)


@coupling.mistake(
    "concept",
    "You feed one uniform number to both cumulative distributions; tempting, because it is one source of randomness "
    "and the marginals are right. But the cuts are shifted against each other, so an action that both like equally "
    "is drawn at different times. Put the shared probability of each action on the diagonal first.",
)
def one_uniform_for_both(p: Tensor, q: Tensor) -> Tensor:
    ends_p, ends_q = p.cumsum(0), q.cumsum(0)
    ends = torch.minimum(ends_p[:, None], ends_q[None, :])
    starts = torch.maximum((ends_p - p)[:, None], (ends_q - q)[None, :])
    return (ends - starts).clamp(min=0)


@coupling.mistake(
    "conditioning",
    "You scale the shared part up until it fills the table; tempting, because then the actions never differ. But "
    "that is the joint distribution given that they agree, and its marginals are neither p nor q.",
)
def always_agrees(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared / shared.sum())


@coupling.mistake(
    "order",
    "Your table is transposed: its rows add up to q and its columns to p; tempting, because the diagonal looks "
    "right either way. The first action, which picks the row, follows p.",
)
def transposed(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared) + torch.outer(q - shared, p - shared) / (p - shared).sum()


@coupling.mistake(
    "constant",
    "You multiply what is left of p and of q without dividing by their total; tempting, because a product of two "
    "distributions is one. These two add up to D_TV, not to 1, so their product adds up to its square.",
)
def leftovers_not_divided(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared) + torch.outer(p - shared, q - shared)


@coupling.mistake(
    "concept",
    "You put min(p, q) on the diagonal of the independent table, and leave the rest of it; tempting, because the "
    "diagonal is what matters. But then rows and columns add up to too much: what lies off the diagonal has to be what "
    "is left of p and of q.",
)
def changes_the_diagonal_only(p: Tensor, q: Tensor) -> Tensor:
    joint = torch.outer(p, q)
    return joint - torch.diag(joint.diagonal()) + torch.diag(torch.minimum(p, q))


@coupling.mistake(
    "concept",
    "Both actions are always the same one, drawn from p; tempting, because they then never differ. But the second one "
    "has to follow q: the columns must add up to q.",
)
def follows_p_twice(p: Tensor, q: Tensor) -> Tensor:  # noqa: ARG001
    return torch.diag(p)


@coupling.mistake(
    "concept",
    "You spread what is left evenly over the table; tempting, because the total is then right. What is left of p "
    "belongs to the actions that p likes better, and what is left of q to those that q does: fill row a and column b "
    "in proportion to both.",
)
def spreads_the_rest_evenly(p: Tensor, q: Tensor) -> Tensor:
    shared, size = torch.minimum(p, q), len(p)
    rest = (1 - shared.sum()) / (size * (size - 1))
    return torch.diag(shared) + rest * (1 - torch.eye(size, dtype=torch.float64))


@coupling.mistake(
    "order",
    "Your diagonal holds max(p, q), and the rest is taken away elsewhere; tempting, because agreement is to be as "
    "large as it can be. Both actions are a together only when p and q both have it: at most min(p(a), q(a)) of the "
    "time.",
)
def takes_the_larger(p: Tensor, q: Tensor) -> Tensor:
    larger = torch.maximum(p, q)
    return torch.diag(larger) - torch.outer(larger - p, larger - q) / (larger - p).sum()


# ---- lower_bound -----------------------------------------------------------------------------------------------------


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


# In the order of the lesson.
CHECKS = (counterexample, surrogate, policy_gradient, coupling, lower_bound)
