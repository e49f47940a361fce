"""Exercise empirical_fisher of lesson 03, The KL constraint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.kl import fisher_matrix
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, mlp_policy
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_03.shared import close

MatrixFunction = Callable[[Policy, Tensor, Batch], Tensor]


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
