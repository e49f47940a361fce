"""Exercise policy_gradient of lesson 01, The policy-improvement bound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import TabularMDP, evaluate_policy
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_01.shared import close, random_mdp


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
