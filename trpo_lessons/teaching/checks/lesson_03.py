"""Checks of lesson 03, The KL constraint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.kl import fisher_matrix
from trpo_lessons.mdp import as_float64
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, mlp_policy
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.checks import Check

AverageFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
MatrixFunction = Callable[[Policy, Tensor, Batch], Tensor]
ChangeFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
PenaltyFunction = Callable[[Tensor, Tensor, float], Tensor]


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape))


def rows(rng: Generator, count: int, outcomes: int) -> Tensor:
    """`count` random distributions over `outcomes` outcomes, none of them impossible."""
    return torch.from_numpy(rng.dirichlet(np.full(outcomes, 2.0), size=count))


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=tolerance, atol=tolerance))


# ---- average_kl ------------------------------------------------------------------------------------------------------


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


# ---- empirical_fisher ------------------------------------------------------------------------------------------------


def small_batch(rng: Generator) -> tuple[Policy, Tensor, Batch]:
    """A small network with a Gaussian or categorical head, its theta, and a batch that a policy nearby collected.

    Were it this very policy, every ratio pi / q would be 1, and what is wrong with it could not be seen.
    """
    head = GaussianHead(2) if rng.random() < 0.5 else CategoricalHead(3)
    policy = mlp_policy(3, head, (3,))
    theta, obs = 0.7 * normal(rng, policy.num_parameters), normal(rng, int(rng.integers(5, 9)), 3)
    nearby = policy(theta + 0.2 * normal(rng, policy.num_parameters), obs)
    actions = nearby.sample_from(nearby.noise(torch.Generator().manual_seed(int(rng.integers(2**31)))))
    return policy, theta, Batch(obs, actions, normal(rng, len(obs)), nearby.log_prob(actions))


def scores_of(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """grad log pi of every sample, [N, num_parameters]."""
    scores: Tensor = torch.func.jacrev(lambda new: policy(new, batch.obs).log_prob(batch.actions))(theta)
    return scores


empirical_fisher = Check("empirical_fisher", minutes=12, inputs=small_batch)


@empirical_fisher.property(
    "With a single sample the matrix should be the outer product of its score with itself, so its trace the squared "
    "length of the score."
)
def one_sample(student: MatrixFunction, rng: Generator) -> bool:
    policy, theta, batch = small_batch(rng)
    matrix = student(policy, theta, batch[:1])
    score = scores_of(policy, theta, batch[:1])[0]
    return close(matrix.trace(), score @ score)


@empirical_fisher.property("The matrix should be symmetric, and v . A v should never be negative.")
def is_a_metric(student: MatrixFunction, rng: Generator) -> bool:
    matrix = student(*small_batch(rng))
    return close(matrix, matrix.T) and float(torch.linalg.eigvalsh(matrix)[0]) > -1e-9


@empirical_fisher.property("The same samples twice over should give the same matrix: it is a mean.")
def twice_the_samples(student: MatrixFunction, rng: Generator) -> bool:
    policy, theta, batch = small_batch(rng)
    columns = (batch.obs, batch.actions, batch.advantages, batch.log_q)
    return close(student(policy, theta, Batch(*(torch.cat([x, x]) for x in columns))), student(policy, theta, batch))


@empirical_fisher.property(
    "Advantages say how good an action was, not how far apart policies are: they should not matter."
)
def advantages_do_not_matter(student: MatrixFunction, rng: Generator) -> bool:
    policy, theta, batch = small_batch(rng)
    other = Batch(batch.obs, batch.actions, normal(rng, len(batch)), batch.log_q)
    return close(student(policy, theta, other), student(policy, theta, batch))


@empirical_fisher.property(
    "The matrix of two samples should be the mean of the matrices of each: multiply out sample by sample, then average."
)
def averages_last(student: MatrixFunction, rng: Generator) -> bool:
    policy, theta, batch = small_batch(rng)
    alone = [student(policy, theta, batch[n : n + 1]) for n in range(2)]
    return close(student(policy, theta, batch[:2]), (alone[0] + alone[1]) / 2)


@empirical_fisher.property(
    "The value is right, but theta comes back asking for gradients: you call requires_grad_ on the tensor that you "
    "were given. Whoever handed it over then keeps every later graph in memory. Use theta.detach().requires_grad_()."
)
def leaves_theta_as_it_was(student: MatrixFunction, rng: Generator) -> bool:
    policy, theta, batch = small_batch(rng)
    student(policy, theta, batch)
    return not theta.requires_grad


@empirical_fisher.mistake(
    "order",
    "You average the scores first and multiply the average by itself; tempting, because one backward pass through a "
    "mean gives it. The mean score is close to zero, and the product has rank one. Multiply out sample by sample, then "
    "average.",
)
def averages_first(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    mean = scores_of(policy, theta, batch).mean(0)
    return torch.outer(mean, mean)


@empirical_fisher.mistake(
    "concept",
    "Your scores are multiplied by the advantages; tempting, because those products are the terms of the gradient. "
    "Their second moment says how noisy the gradient is. The Fisher matrix says how far policies are apart, whatever "
    "they earn.",
)
def multiplies_by_advantages(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    terms = scores_of(policy, theta, batch) * batch.advantages[:, None]
    return terms.T @ terms / len(batch)


@empirical_fisher.mistake(
    "concept",
    "You take minus the second derivative of the mean log probability; tempting, because both have the same "
    "expectation. On sampled actions they differ, and yours can even have negative eigenvalues: no metric. Asked for "
    "is the mean product of scores.",
)
def takes_second_derivatives(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    def log_likelihood(new: Tensor) -> Tensor:
        return policy(new, batch.obs).log_prob(batch.actions).mean()

    hessian: Tensor = torch.func.hessian(log_likelihood)(theta)
    return -hessian


@empirical_fisher.mistake(
    "concept",
    "This is the analytic matrix: you average over all actions that could have been taken. It is tempting, because it "
    "is the better estimate. The empirical one uses the actions that were taken, and nothing else.",
)
def averages_over_all_actions(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    return fisher_matrix(policy, theta, batch.obs)


@empirical_fisher.mistake(
    "concept",
    "You subtract the mean score before you multiply; tempting, because a covariance is made so. The score's "
    "expectation is known to be zero, in every state, so nothing has to be estimated and taken away.",
)
def centers_the_scores(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    scores = scores_of(policy, theta, batch)
    centered = scores - scores.mean(0)
    return centered.T @ centered / len(batch)


@empirical_fisher.mistake(
    "concept",
    "This is torch.cov of the scores, which subtracts their mean and divides by N - 1; tempting, because the Fisher "
    "matrix is a covariance. But the mean is known, it is zero: nothing is estimated and nothing has to be subtracted, "
    "and the plain mean over N is asked for.",
)
def takes_a_sample_covariance(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    return torch.cov(scores_of(policy, theta, batch).T)


@empirical_fisher.mistake(
    "concept",
    "You keep the diagonal and leave the rest zero; tempting, because optimizers such as Adam do. Then each parameter "
    "is measured for itself, and what two of them do together to the policy is forgotten.",
)
def keeps_the_diagonal(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    return torch.diag(scores_of(policy, theta, batch).square().mean(0))


@empirical_fisher.mistake(
    "conditioning",
    "You take the scores of the most likely actions; tempting, because the policy returns them. The batch holds the "
    "actions that were drawn, and only those average to the Fisher matrix.",
)
def takes_the_likeliest_actions(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    likeliest = Batch(batch.obs, policy(theta, batch.obs).mode(), batch.advantages, batch.log_q)
    scores = scores_of(policy, theta, likeliest)
    return scores.T @ scores / len(batch)


@empirical_fisher.mistake(
    "concept",
    "You differentiate the probability itself; tempting, because KL compares probabilities. The score is the "
    "derivative of its logarithm: the change of a probability *in proportion* to what it was.",
)
def forgets_the_logarithm(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    weighted = scores_of(policy, theta, batch) * policy(theta, batch.obs).log_prob(batch.actions).exp()[:, None]
    return weighted.T @ weighted / len(batch)


@empirical_fisher.mistake(
    "concept",
    "You differentiate the ratio pi / q; tempting, because that is what the surrogate does, and where q is the policy "
    "itself the two are the same. Here q is another policy. The score is the derivative of log pi, whoever drew the "
    "action.",
)
def differentiates_the_ratio(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    ratios = (policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q).exp()
    weighted = scores_of(policy, theta, batch) * ratios[:, None]
    return weighted.T @ weighted / len(batch)


@empirical_fisher.mistake(
    "conditioning",
    "You weigh each product with the ratio pi / q; tempting, because that is how lesson 02 corrects actions that "
    "another policy drew. The definition above is the plain mean over the actions of the batch.",
)
def weighs_with_the_ratio(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    scores = scores_of(policy, theta, batch)
    ratios = (policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q).exp()
    return (scores * ratios[:, None]).T @ scores / len(batch)


@empirical_fisher.mistake(
    "constant",
    "You divide by N - 1; tempting, because a sample covariance does. There the mean was estimated from the same "
    "samples. Here it is known to be zero, so N is right; with a single sample yours is not even a number.",
)
def divides_by_one_less(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    scores = scores_of(policy, theta, batch)
    return scores.T @ scores / (len(batch) - 1)


@empirical_fisher.mistake(
    "constant",
    "You add the products up; tempting, because scores.T @ scores does. The mean is asked for: with a sum, twice as "
    "much data would make the same two policies twice as different.",
)
def adds_up(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    scores = scores_of(policy, theta, batch)
    return scores.T @ scores


# ---- in_other_parameters ---------------------------------------------------------------------------------------------


def metric(rng: Generator, size: int) -> Tensor:
    """A random symmetric matrix with positive eigenvalues, [size, size]."""
    factor = normal(rng, size, size)
    return factor @ factor.T + torch.eye(size, dtype=torch.float64)


def other_parameters(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A gradient [n], a Fisher matrix [n, n] and an invertible change of parameters [n, n]."""
    n = int(rng.integers(2, 5))
    return normal(rng, n), metric(rng, n), 2 * torch.eye(n, dtype=torch.float64) + 0.5 * normal(rng, n, n)


in_other_parameters = Check("in_other_parameters", minutes=10, inputs=other_parameters)


@in_other_parameters.property(
    "A step e in phi is the step B e in theta. L should rise by the same in both: your gradient . e should be g . B e."
)
def same_slope(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(student(g, A, B)[0] @ e, g @ (B @ e))


@in_other_parameters.property(
    "A step e in phi is the step B e in theta. The policy should move equally far in both: e . A' e should be "
    "(B e) . A (B e), where A' is your matrix."
)
def same_distance(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(e @ student(g, A, B)[1] @ e, (B @ e) @ A @ (B @ e))


@in_other_parameters.property(
    "The natural direction in phi, taken to theta by B, should be the natural direction in theta."
)
def same_natural_direction(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    return close(B @ torch.linalg.solve(*reversed(student(g, A, B))), torch.linalg.solve(A, g))


@in_other_parameters.property(
    "Parameters may be to spare, as the softmax walker's were: then A has no inverse. Nothing here needs one."
)
def without_an_inverse(student: ChangeFunction, rng: Generator) -> bool:
    g, _, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(e @ student(g, torch.outer(g, g), B)[1] @ e, (g @ (B @ e)).square())


@in_other_parameters.mistake(
    "concept",
    "You treat the gradient as a step and take it to phi with the inverse of B; tempting, because phi is the inverse "
    "of B times theta. A gradient is a list of slopes, 'so much per unit of phi': where the unit of phi is larger, a "
    "step has a smaller number and the slope a larger one.",
)
def inverts(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.inv(B)
    return inverse @ g, inverse @ A @ inverse.T


@in_other_parameters.mistake(
    "concept",
    "Your matrix is right, but the gradient is divided by B as if it were a step; tempting, because steps go that way. "
    "Steps and gradients change oppositely, so that slope times step, the gain, stays the same.",
)
def inverts_the_gradient(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.solve(B, g), B.T @ A @ B


@in_other_parameters.mistake(
    "order",
    "B and its transpose have changed places; tempting, because theta is B phi. The derivative in phi_j collects what "
    "phi_j does to every theta_i, which is the column j of B.",
)
def transposed(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B @ g, B @ A @ B.T


@in_other_parameters.mistake(
    "concept",
    "Your Fisher matrix stays what it was; tempting, because KL does not depend on the parameters. The number does "
    "not, but its second derivatives count change per unit of the parameters, and the units are others.",
)
def leaves_the_matrix(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, A.clone()


@in_other_parameters.mistake(
    "concept",
    "Your gradient stays what it was; tempting, because L is the same function of the policy. But a gradient is "
    "taken in parameters: the chain rule brings one factor for it, and two for a matrix of second derivatives.",
)
def leaves_the_gradient(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return g.clone(), B.T @ A @ B


@in_other_parameters.mistake(
    "concept",
    "Your matrix is that of a linear map in another basis, with B and its inverse on the sides; tempting, because that "
    "is how matrices are taught to change. The Fisher matrix is no map from steps to steps. It takes two steps and "
    "gives a number, so each side gets the B of its step.",
)
def similarity(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, torch.linalg.solve(B, A @ B)


@in_other_parameters.mistake(
    "order",
    "B stands on one side of the matrix only; tempting, because one factor is right for the gradient. Second "
    "derivatives are taken twice, so the chain rule brings B twice: the result has to be symmetric again.",
)
def one_side(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, B.T @ A


@in_other_parameters.mistake(
    "order",
    "B stands on the right-hand side of the matrix only; tempting, because a matrix times B looks like a change of "
    "columns. A product of two steps, e . A f, needs both of them in theta: B e and B f.",
)
def other_side(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, A @ B


@in_other_parameters.mistake(
    "order",
    "The gradient is right; in the matrix B and its transpose have changed places; tempting, because B A B^T is how "
    "the covariance of B x follows from that of x. The score takes B^T, like a gradient: its covariance is B^T A B.",
)
def transposes_the_matrix(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, B @ A @ B.T


@in_other_parameters.mistake(
    "order",
    "You go the other way, from phi to theta; tempting, because one of the two has to be the inverse. Given are "
    "gradient and matrix in theta: a step e in phi is the step B e there, and no inverse is needed.",
)
def goes_the_other_way(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.inv(B)
    return inverse.T @ g, inverse.T @ A @ inverse


# ---- matching_penalty ------------------------------------------------------------------------------------------------


def root(x: Tensor) -> Tensor:
    """The square root."""
    return x.sqrt()


def quadratic_problem(rng: Generator) -> tuple[Tensor, Tensor, float]:
    """A gradient [3], a Fisher matrix [3, 3] and a delta."""
    return normal(rng, 3), metric(rng, 3), float(rng.uniform(0.005, 0.1))


matching_penalty = Check("matching_penalty", minutes=10, inputs=quadratic_problem)


@matching_penalty.property(
    "Your coefficient is half of what it should be; tempting, because the derivative of d . A d has a factor of 2. The "
    "penalty is lam times *half* of d . A d, whose derivative is lam A d."
)
def remembers_the_half_of_the_penalty(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return not close(2 * student(g, A, delta), root(g @ torch.linalg.solve(A, g) / (2 * delta)))


@matching_penalty.property(
    "Take the best step for your coefficient, A^-1 g / lam: half of step . A step should be delta."
)
def lands_on_the_edge(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    step = torch.linalg.solve(A, g) / student(g, A, delta)
    return close(0.5 * step @ A @ step, delta)


@matching_penalty.property(
    "Count rewards in cents, and every gain is 100 times as large: only a coefficient that is 100 times as large "
    "still matches delta."
)
def follows_the_rewards(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(100 * g, A, delta), 100 * student(g, A, delta))


@matching_penalty.property("The coefficient should not depend on how the policy is written down: theta = B phi.")
def same_in_other_parameters(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    B = 2 * torch.eye(3, dtype=torch.float64) + 0.5 * normal(rng, 3, 3)
    return close(student(B.T @ g, B.T @ A @ B, delta), student(g, A, delta))


@matching_penalty.property(
    "A Fisher matrix may be small, of the order of 1e-12, where a policy is nearly deterministic: the coefficient then "
    "grows by the square root of what A lost. Something added to A, or a search that ends too early, gets in the way."
)
def small_matrices(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(g, 1e-12 * A, delta), 1e6 * student(g, A, delta))


@matching_penalty.property(
    "delta may be anything above 0: a trust region of a millionth the size takes a coefficient 1000 times as large."
)
def any_delta(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(g, A, 1e-6 * delta), 1e3 * student(g, A, delta))


@matching_penalty.mistake(
    "concept",
    "You divide the length of g by the root of 2 delta; tempting, because that is right for equation 19, where the "
    "ruler is the parameters themselves. With KL as the ruler, the gradient too is measured by A: g . A^-1 g.",
)
def measures_in_parameters(g: Tensor, _A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = g.norm() / math.sqrt(2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You put A where its inverse belongs: g . A g; tempting, because a step is measured by A. A gradient is not a "
    "step. The step is A^-1 g, and (A^-1 g) . A (A^-1 g) = g . A^-1 g.",
)
def measures_the_gradient_like_a_step(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ A @ g / (2 * delta))


@matching_penalty.mistake(
    "concept",
    "You return the factor in front of A^-1 g, the length of the step; tempting, because that is what lesson 05 will "
    "need. The coefficient divides: the higher the price of KL, the shorter the step.",
)
def returns_the_step_size(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(2 * delta / (g @ torch.linalg.solve(A, g)))


@matching_penalty.mistake(
    "concept",
    "The square root is missing. The gain falls with 1 / lam and KL with 1 / lam squared; tempting to overlook, "
    "because one solves for lam squared.",
)
def forgets_the_root(g: Tensor, A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = g @ torch.linalg.solve(A, g) / (2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You make the step as long as the root of 2 delta in the parameters; tempting, because length is what one sees. "
    "The direction is the natural one, but its length has to be measured with A as well: half of step . A step.",
)
def measures_the_step_in_parameters(g: Tensor, A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = torch.linalg.solve(A, g).norm() / math.sqrt(2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You divide by the diagonal of A, parameter by parameter; tempting, because no system has to be solved. What two "
    "parameters do together to the policy is then ignored, and the step misses the edge.",
)
def divides_by_the_diagonal(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root((g.square() / A.diagonal()).sum() / (2 * delta))


@matching_penalty.mistake(
    "constant",
    "A factor of root 2 is missing: the quadratic picture of KL has a one half in front; tempting to drop it, because "
    "it does not move the direction. Your step covers only half of the KL that it may.",
)
def forgets_the_half(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ torch.linalg.solve(A, g) / delta)


@matching_penalty.mistake(
    "concept",
    "The root stands over g . A^-1 g only, not over 2 delta; tempting, because delta looks like a length. It is a "
    "squared one: KL grows with the square of the step, so delta belongs under the root.",
)
def leaves_delta_out_of_the_root(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ torch.linalg.solve(A, g)) / (2 * delta)


@matching_penalty.mistake(
    "order",
    "You multiply by 2 delta where you should divide; tempting, because a larger delta makes a larger step. The "
    "coefficient is the price that keeps the step small: more room, lower price.",
)
def multiplies_by_delta(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(2 * delta * (g @ torch.linalg.solve(A, g)))


CHECKS = (average_kl, empirical_fisher, in_other_parameters, matching_penalty)
