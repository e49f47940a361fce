"""Checks of lesson 04, Conjugate gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.kl import fisher_matrix, fisher_vector_product, gauss_newton_product
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, linear_policy, mlp_policy
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.graphs import GraphCheck

MatVec = Callable[[Tensor], Tensor]
SoftmaxProduct = Callable[[Tensor, Tensor, Tensor], Tensor]
PolicyProduct = Callable[[Policy, Tensor, Tensor, Tensor], Tensor]
Solver = Callable[[MatVec, Tensor, int], Tensor]
Count = Callable[[float, float, float, float], int]


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.from_numpy(rng.normal(size=shape))


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to `tolerance`."""
    return bool(torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=tolerance, atol=tolerance))


def keeps_the_type(answer: Tensor, like: Tensor) -> bool:
    """Whether `answer` has the type of numbers of `like`, and hangs on no graph."""
    return answer.dtype == like.dtype and not answer.requires_grad


# ---- softmax_fisher_product ------------------------------------------------------------------------------------------


def linear_softmax(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [3, 4], observations [6, 3] and a direction [3, 4]."""
    return normal(rng, 3, 4), normal(rng, 6, 3), normal(rng, 3, 4)


def covariance_product(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    """A v [3, 4] with M [N, 4, 4] written out, to compare with."""
    probs = (obs @ W).softmax(-1)
    M = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    return torch.einsum("nd,nab,nb->da", obs, M, obs @ v) / len(obs)


softmax_fisher_product = Check("softmax_fisher_product", minutes=8, inputs=linear_softmax)


@softmax_fisher_product.property(
    "Two calls with the same arguments give two products. Do you draw actions? M is the mean over all of them, known "
    "in closed form: nothing here is random."
)
def product_by_hand_is_no_estimate(student: SoftmaxProduct, rng: Generator) -> bool:
    given = linear_softmax(rng)
    return close(student(*given), student(*given))


@softmax_fisher_product.property(
    "Your product is right to a few digits only. Is something turned into float32 on the way, or is a finite "
    "difference taken?"
)
def product_by_hand_has_all_its_digits(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    exact = covariance_product(W, obs, v)
    mine = student(W, obs, v)
    return close(mine, exact) or not close(mine, exact, 1e-4)


@softmax_fisher_product.property(
    "The product should be linear in v: twice the direction, twice the product. v belongs in J v and nowhere else, the "
    "probabilities come from W."
)
def product_by_hand_is_linear(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    return close(student(W, obs, 2 * v), 2 * student(W, obs, v))


@softmax_fisher_product.property(
    "Moving all logits of a state by the same amount changes no probability, so a direction v with equal columns "
    "should give 0."
)
def ignores_shifts(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, _ = linear_softmax(rng)
    return close(student(W, obs, normal(rng, 3, 1).expand(3, 4).clone()), torch.zeros(3, 4, dtype=torch.float64))


@softmax_fisher_product.property("A is symmetric: u . (A v) should equal v . (A u).")
def is_symmetric(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    u = normal(rng, 3, 4)
    return close((u * student(W, obs, v)).sum(), (v * student(W, obs, u)).sum())


@softmax_fisher_product.property(
    "For a short step, half of v . (A v) should be the mean KL between the policies before and after it."
)
def measures_kl(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    old, new = (torch.log_softmax(obs @ (W + h * v), -1) for h in (0.0, 1e-4))
    kl = (old.exp() * (old - new)).sum(-1).mean()
    return close((v * student(W, obs, v)).sum() / 2, kl / 1e-8, 1e-2)


@softmax_fisher_product.property(
    "Along a very long v the product loses its digits, as a finite difference does. J, M and J^T are all there: "
    "multiply."
)
def product_by_hand_is_exact(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    return close(student(W, obs, 1e4 * v) / 1e4, student(W, obs, v))


@softmax_fisher_product.property("One state should do: the mean over a single state is what that state says.")
def takes_a_single_state(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    one_by_one = torch.stack([student(W, state[None], v) for state in obs])
    return close(one_by_one.mean(0), student(W, obs, v))


@softmax_fisher_product.property(
    "With logits around 1000 your product is not finite: exp overflows, or is 0 everywhere. torch.softmax subtracts "
    "the largest logit first."
)
def survives_large_logits(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = linear_softmax(rng)
    far = W + 1000 * torch.ones(3, 1, dtype=torch.float64)  # moves all logits of a state alike
    return close(student(far, obs, v), student(W, obs, v))


@softmax_fisher_product.property(
    "The product should hang on no graph and have the precision of its arguments. Nothing has to be differentiated "
    "here."
)
def product_of_plain_numbers(student: SoftmaxProduct, rng: Generator) -> bool:
    W, obs, v = (part.float() for part in linear_softmax(rng))
    return keeps_the_type(student(W, obs, v), W) and not W.requires_grad


@softmax_fisher_product.mistake(
    "order",
    "Your softmax runs over the states, not over the actions; tempting, because dim=0 comes first. Probabilities of "
    "the actions in one state add up to 1: softmax over the last axis.",
)
def normalizes_over_the_states(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(0), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You average p times J v over the actions, where the sum belongs; tempting, because a mean is what is wanted. The "
    "weights p add up to 1 already: their weighted sum is the mean under p, and dividing once more makes it too small.",
)
def averages_what_is_weighted(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * pushed - probs * (probs * pushed).mean(-1, keepdim=True)) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You leave out M: this is J^T J v. It is tempting, because for least squares the product is just that. KL does not "
    "count every change of a logit alike: a change of an action that is hardly ever taken costs next to nothing. M "
    "= diag(p) - p p^T says how much.",
)
def leaves_out_the_metric(_W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return obs.T @ (obs @ v) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "Your M is diag(p) without - p p^T; tempting, because each probability seems to weigh its own logit. But raising "
    "all logits of a state together changes nothing and must cost nothing: subtract the mean of J v under p first.",
)
def leaves_out_the_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return obs.T @ ((obs @ W).softmax(-1) * (obs @ v)) / len(obs)


@softmax_fisher_product.mistake(
    "sign",
    "Your M is diag(p) + p p^T; tempting, because a matrix with a plus everywhere looks safe. M is the covariance of "
    "the one-hot action, and a covariance subtracts the product of the means.",
)
def adds_the_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed + (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "order",
    "You average the probabilities over the states first, and use one M for all of them; tempting, because the Fisher "
    "matrix is a mean over states. It is the mean of J^T M J, and M differs from state to state: average last.",
)
def averages_too_early(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1).mean(0), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "concept",
    "You subtract the plain mean of J v over the actions, where the mean under the policy belongs; tempting, because "
    "both make a shift of all logits cost nothing. The covariance is taken under p: actions that are taken often count "
    "more in it.",
)
def subtracts_the_plain_mean(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed - pushed.mean(-1, keepdim=True))) / len(obs)


@softmax_fisher_product.mistake(
    "constant",
    "You add the states up and do not divide by how many there are; tempting, because J^T already sums. The constraint "
    "is on the mean KL, so delta would mean something else with every size of batch.",
)
def sums_over_states(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True)))


# ---- fisher_product --------------------------------------------------------------------------------------------------


def policy_and_direction(rng: Generator) -> tuple[Policy, Tensor, Tensor, Tensor]:
    """A small Gaussian or categorical policy, theta, five observations and a direction."""
    head = GaussianHead(2) if rng.random() < 0.5 else CategoricalHead(3)
    policy = mlp_policy(3, head, (3,)) if rng.random() < 0.5 else linear_policy(3, head)
    theta = 0.7 * normal(rng, policy.num_parameters)
    return policy, theta, normal(rng, 5, 3), normal(rng, policy.num_parameters)


fisher_product = GraphCheck("fisher_product", minutes=10, inputs=policy_and_direction)


@fisher_product.property(
    "Two calls with the same arguments give two products. Do you draw actions? The KL of a distribution is a formula: "
    "nothing here is random."
)
def product_is_no_estimate(student: PolicyProduct, rng: Generator) -> bool:
    given = policy_and_direction(rng)
    return close(student(*given), student(*given))


@fisher_product.property(
    "You have added a multiple of v: that is damping. Keep it out of A; where it is wanted, one writes "
    "product(v) + damping * v, and sees what it is."
)
def adds_no_multiple_of_v(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    extra = student(policy, theta, obs, v) - fisher_matrix(policy, theta, obs) @ v
    share = torch.dot(extra, v) / torch.dot(v, v)
    return bool(share.abs() < 1e-9) or not close(extra, share * v)


@fisher_product.property(
    "Your product is right to a few digits only, as a finite difference is, or what went through float32. "
    "Differentiate exactly, in the precision of theta: torch.autograd.grad(..., create_graph=True) gives a gradient "
    "that can be differentiated again."
)
def product_is_exact(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    mine, exact = student(policy, theta, obs, v), fisher_matrix(policy, theta, obs) @ v
    return close(mine, exact) or not close(mine, exact, 1e-3)


@fisher_product.property("The product should be linear in v: twice the direction, twice the product.")
def product_is_linear(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    return close(student(policy, theta, obs, 2 * v), 2 * student(policy, theta, obs, v))


@fisher_product.property("v . (A v) should be positive for a direction that changes the policy.")
def product_is_positive(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    return bool(torch.dot(v, student(policy, theta, obs, v)) > 1e-9)


@fisher_product.property(
    "For a short step, half of v . (A v) should be the mean KL between the policies before and after it."
)
def product_measures_kl(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    kl = policy(theta, obs).kl(policy(theta + 1e-4 * v, obs)).mean()
    return close(torch.dot(v, student(policy, theta, obs, v)) / 2, kl / 1e-8, 1e-2)


@fisher_product.property(
    "Along a very long v the product loses its digits, as a central difference does. Differentiate exactly, twice."
)
def product_is_exact_along_a_long_direction(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    return close(student(policy, theta, obs, 1e4 * v) / 1e4, fisher_matrix(policy, theta, obs) @ v)


@fisher_product.property(
    "Your function leaves a mark on the theta it was given: it now keeps a graph. Write "
    "theta.detach().requires_grad_(), which makes a new tensor; requires_grad_() alone changes the caller's."
)
def leaves_theta_as_it_was(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    student(policy, theta, obs, v)
    return not theta.requires_grad and theta.grad is None


@fisher_product.property(
    "The numbers are right, but they still hang on their graph: whatever is computed from them keeps it alive, product "
    "by product. create_graph=True belongs in the first gradient only."
)
def product_hangs_on_no_graph(student: PolicyProduct, rng: Generator) -> bool:
    return not student(*policy_and_direction(rng)).requires_grad


@fisher_product.property("With arguments in float32 the product should be in float32, as a policy that learns has it.")
def product_keeps_the_precision(student: PolicyProduct, rng: Generator) -> bool:
    policy, theta, obs, v = policy_and_direction(rng)
    single = student(policy, theta.float(), obs.float(), v.float())
    return single.dtype == torch.float32 and close(single.double(), student(policy, theta, obs, v), 1e-3)


@fisher_product.mistake(
    "concept",
    "You differentiate the largest KL among the states; tempting, because lesson 01's bound speaks of the maximum. The "
    "practical constraint is on the mean over states, and so is A.",
)
def differentiates_the_largest_kl(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    old = policy(theta, obs).detach()
    worst = old.kl(policy(theta + 1e-3 * v, obs)).argmax()
    return second_derivative(lambda at: old.kl(policy(at, obs))[worst], theta, v)


@fisher_product.mistake(
    "detachment",
    "Your product is zero. Either the old policy is not detached, so that it moves along with theta and the KL stays 0 "
    "wherever theta goes; tempting, because both policies come from the same call. Or you stop at the first derivative "
    "of the KL, which is 0 at theta. The old policy is a constant, policy(theta, obs).detach(), and A the second "
    "derivative.",
)
def leaves_old_policy_attached(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return second_derivative(lambda at: policy(at, obs).kl(policy(at, obs)).mean(), theta, v)


@fisher_product.mistake(
    "concept",
    "You return the gradient of the KL at theta + v; tempting, because for a quadratic that is A v. The KL is "
    "quadratic only up close, and v need not be short: differentiate at theta.",
)
def takes_gradient_at_the_other_end(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    old = policy(theta, obs).detach()
    gradient: Tensor = torch.func.grad(lambda at: old.kl(policy(at, obs)).mean())(theta + v)
    return gradient


@fisher_product.mistake(
    "concept",
    "You compute J^T J v, as if the network's outputs were compared by squared distance; tempting, because that is the "
    "product for a least-squares fit. Between J and J^T belongs M, the Fisher matrix of the distribution.",
)
def forgets_the_metric(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    at = theta.clone().requires_grad_()
    return gauss_newton_product(at, policy(at, obs).parameters)(v) / len(obs)


@fisher_product.mistake(
    "concept",
    "You multiply v by the diagonal of A only; tempting, because optimizers such as Adam make do with one number for "
    "each parameter. How parameters act together is what a natural step is about, and most of A is off its diagonal.",
)
def keeps_only_the_diagonal(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    return fisher_matrix(policy, theta, obs).diagonal() * v


@fisher_product.mistake(
    "conditioning",
    "You have added 0.1 v: that is the damping; tempting, because an update asks for it in the end. Keep it out of A: "
    "where it is wanted, one writes product(v) + damping * v, and sees what it is.",
)
def adds_damping(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    states = Batch(obs, obs, obs[:, 0], obs[:, 0])
    return fisher_vector_product(policy, theta, states)(v) + 0.1 * v


@fisher_product.mistake(
    "constant",
    "You add the KL of all states up; tempting, because a sum is what backward likes. The constraint is on the mean, "
    "so with a sum delta would mean something else with every size of batch.",
)
def sums_the_kl(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    old = policy(theta, obs).detach()
    return second_derivative(lambda at: old.kl(policy(at, obs)).sum(), theta, v)


def second_derivative(function: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor) -> Tensor:
    """The Hessian of `function` at theta, times v."""
    at = theta.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(at), at, create_graph=True)
    (result,) = torch.autograd.grad(torch.dot(slope, v), at)
    return result


# ---- solve -----------------------------------------------------------------------------------------------------------


def positive_definite(rng: Generator, n: int) -> Tensor:
    """A random symmetric matrix [n, n] with eigenvalues between 1 and 20."""
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return torch.from_numpy((Q * rng.uniform(1, 20, size=n)) @ Q.T)


def system(rng: Generator) -> tuple[MatVec, Tensor, int]:
    """A product with a positive definite matrix [6, 6], a right-hand side and fewer iterations than it takes."""
    A = positive_definite(rng, 6)
    return lambda v: A @ v, normal(rng, 6), int(rng.integers(3, 5))


def three_solutions(function: Solver, matvec: MatVec, b: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the system; of one whose residual is zero after one iteration; of one whose residual grows in the first."""
    steep, across = torch.tensor([1.0, 100.0]).double(), torch.tensor([1.0, 0.25]).double()
    return (
        function(matvec, b.clone(), iterations),
        function(lambda v: 2 * v, torch.ones(3, dtype=torch.float64), 3),
        function(lambda v: steep * v, across, 2),
    )


solve = Check("solve", minutes=15, inputs=system, behavior=three_solutions)


@solve.property(
    "x is right to a few digits only. Is something turned into float32 on the way, or a small number added to A or to "
    "what you divide by?"
)
def solution_has_all_its_digits(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    mine, exact = student(lambda v: A @ v, b, 4), variant(lambda v: A @ v, b, 4)
    return close(mine, exact, 1e-8) or not close(mine, exact, 1e-4)


@solve.property("With as many iterations as A has rows, A x should be b.")
def solves(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    return close(A @ student(lambda v: A @ v, b, 5), b, 1e-6)


@solve.property("After one iteration x should be the lowest point along b, which is (b . b) / (b . A b) times b.")
def first_step_is_along_b(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    return close(student(lambda v: A @ v, b, 1), torch.dot(b, b) / torch.dot(b, A @ b) * b)


@solve.property("With few iterations x should be only as near as they come: `iterations` says how many there are.")
def does_as_many_as_asked_for(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(student(lambda v: A @ v, b, 3), variant(lambda v: A @ v, b, 3), 1e-8)


@solve.property("When the residual is exactly zero the solution is found, and x should stay where it is.")
def stays_at_the_solution(student: Solver, _rng: Generator) -> bool:
    return close(student(lambda v: 2 * v, torch.ones(3, dtype=torch.float64), 3), torch.full((3,), 0.5).double())


@solve.property(
    "With b a billion times smaller, x should be a billion times smaller. Do you stop below a fixed length, or keep a "
    "small number in a denominator? Gradients come in every size: compare with b's own length, or with 0."
)
def whatever_the_size_of_b(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(1e9 * student(lambda v: A @ v, 1e-9 * b, 4), student(lambda v: A @ v, b, 4), 1e-7)


@solve.property(
    "With A a billion times flatter, x should be a billion times longer. Is a small number added to p . A p? It does "
    "not protect, it changes the step."
)
def whatever_the_size_of_a(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(1e-9 * student(lambda v: 1e-9 * (A @ v), b, 4), student(lambda v: A @ v, b, 4), 1e-7)


@solve.property(
    "x should have the precision of b, in float64 and in float32: start from torch.zeros_like(b), not from torch.zeros."
)
def solution_keeps_the_precision(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    single = student(lambda v: A.float() @ v, b.float(), 3)
    return keeps_the_type(single, b.float()) and keeps_the_type(student(lambda v: A @ v, 0 * b, 3), b)


@solve.property("With no iterations at all x should be 0, where it starts.")
def starts_at_zero(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 4), normal(rng, 4)
    return close(student(lambda v: A @ v, b, 0), torch.zeros(4, dtype=torch.float64))


@solve.property("Where b is 0 there is nothing to do: x should be 0. Look before the first step, not only after it.")
def stays_at_zero(student: Solver, rng: Generator) -> bool:
    A = positive_definite(rng, 4)
    return close(student(lambda v: A @ v, torch.zeros(4, dtype=torch.float64), 3), torch.zeros(4, dtype=torch.float64))


@solve.property(
    "x is right, but you ask for more than one product in an iteration, and products are what costs. Keep A p in a "
    "variable; the residual follows from it."
)
def one_product_an_iteration(student: Solver, rng: Generator) -> bool:
    A, b, calls = positive_definite(rng, 5), normal(rng, 5), 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return A @ v

    student(matvec, b, 4)
    return calls <= 5  # one more, for a residual computed at the start, is forgiven


@solve.property(
    "On a system with forty rows, 24 iterations should come as near as 24 products can; on six rows yours do. Does "
    "your loop end sooner, at a count of its own or at a residual that is small but not 0? Or does it start afresh "
    "from the residual now and then? `iterations` says how many, and every direction builds on the last."
)
def goes_all_the_way_in_many_dimensions(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 40), normal(rng, 40)
    return close(student(lambda v: A @ v, b, 24), variant(lambda v: A @ v, b, 24), 1e-8)


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def variant(
    matvec: MatVec,
    b: Tensor,
    iterations: int,
    *,
    next_p: Rule = lambda r, _r_before, p, ratio: r + ratio * p,
    alpha: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda r, p, a_p: torch.dot(r, r) / torch.dot(p, a_p),
    sign: int = -1,
    stops: bool = True,
) -> Tensor:
    """Conjugate gradient with one of its parts replaced."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        if stops and torch.dot(r, r) == 0:
            break
        a_p = matvec(p)
        step = alpha(r, p, a_p)
        x, before = x + step * p, r
        r = r + sign * step * a_p
        p = next_p(r, before, p, torch.dot(r, r) / torch.dot(before, before))
    return x


@solve.mistake(
    "concept",
    "You go along the residual every time: that is steepest descent; tempting, because the residual is the steepest "
    "way down. Each of its steps undoes part of the last. Keep the old direction in play: p = r + (new rr / old rr) p.",
)
def descends_steepest(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, _p, _ratio: r)


@solve.mistake(
    "order",
    "Your ratio of squared residuals is always 1: r is overwritten before its old length is used; tempting, because "
    "the formula writes both with the letter r. Keep the old r . r in a variable.",
)
def forgets_the_old_length(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, _ratio: r + p)


@solve.mistake(
    "concept",
    "Your ratio is one of lengths, where squared lengths belong; tempting, because lengths are what residuals are "
    "reported by. Conjugacy asks for (new r . new r) / (old r . old r), without roots.",
)
def takes_the_ratio_of_lengths(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r + ratio.sqrt() * p)


@solve.mistake(
    "order",
    "Your ratio of squared residuals is upside down; tempting, because alpha has the old one on top. In the new "
    "direction the new one goes on top: as the residual gets small, the old direction has to fade.",
)
def turns_ratio_upside_down(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r + p / ratio)


@solve.mistake(
    "sign",
    "You subtract the old direction from the residual; tempting, because Gram-Schmidt subtracts. Its coefficient here "
    "is negative already, and the two signs cancel: p = r + (new rr / old rr) p.",
)
def subtracts_the_old_direction(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r - ratio * p)


@solve.mistake(
    "sign",
    "Your residual moves the wrong way; tempting, because x is updated with a plus. The residual is b - A x, so when x "
    "grows by alpha p it shrinks by alpha A p.",
)
def grows_the_residual(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, sign=1)


@solve.mistake(
    "concept",
    "Your step length divides by p . p, where the curvature p . A p belongs; tempting, because that normalizes p. How "
    "far down the lowest point lies depends on how the bowl curves along p, and A knows that.",
)
def ignores_the_curvature(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, alpha=lambda r, p, _a_p: torch.dot(r, r) / torch.dot(p, p))


@solve.mistake(
    "order",
    "Your new direction is made from the residual before the step; tempting, because the lines can be written in "
    "either order. Update the residual first: the next direction starts from where you now are.",
)
def uses_the_stale_residual(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda _r, before, p, ratio: before + ratio * p)


@solve.mistake(
    "termination",
    "You go on when the residual is exactly zero, and divide 0 by 0; tempting, because on random systems it never "
    "happens. It does when A is a multiple of the identity, for example with nothing but damping. Stop there.",
)
def never_stops(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, stops=False)


@solve.mistake(
    "order",
    "Your p and your r are one and the same tensor at the start: p = r gives it a second name, and r -= ... changes "
    "what p sees; tempting, because the method starts with both equal to b. The first direction is then lost. Write "
    "p = r.clone(), or r = r - ..., which makes a new tensor.",
)
def shares_a_tensor_at_the_start(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r = torch.zeros_like(b), b.clone()
    p = r
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        x = x + alpha * p
        r -= alpha * a_p
        p = r + torch.dot(r, r) / rr * p
    return x


@solve.mistake(
    "order",
    "Your p and your r stay one and the same tensor all the way: p = r, and then r -= ... and p *= ... both change it; "
    "tempting, because in place saves memory. Residual and direction are two vectors: p = r.clone().",
)
def shares_a_tensor_all_the_way(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r = torch.zeros_like(b), b.clone()
    p = r
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        x = x + alpha * p
        r -= alpha * a_p
        p *= torch.dot(r, r) / rr
        p += r
    return x


@solve.mistake(
    "order",
    "You take the step length from before with the direction from now: x moves along the new p; tempting, because p is "
    "updated in the same loop. Move x along the p that alpha was computed for, and renew p last.",
)
def moves_along_the_next_direction(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        r = r - alpha * a_p
        p = r + torch.dot(r, r) / rr * p
        x = x + alpha * p
    return x


@solve.mistake(
    "concept",
    "You keep one step length for all iterations, that of the first; tempting, because a learning rate is a constant. "
    "Each direction has a curvature of its own, and its lowest point elsewhere: alpha = (r . r) / (p . A p) every "
    "time.",
)
def keeps_the_first_step_length(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    first = torch.dot(b, b) / torch.dot(b, matvec(b))
    return variant(matvec, b, iterations, alpha=lambda _r, _p, _a_p: first)


@solve.mistake(
    "termination",
    "You solve to the end, whatever `iterations` says; tempting, because a better x looks like a better answer. Every "
    "iteration costs a product with A, and a few are enough for the update: the caller decides how many.",
)
def solves_to_the_end(matvec: MatVec, b: Tensor, _iterations: int) -> Tensor:
    return variant(matvec, b, len(b))


@solve.mistake(
    "indexing",
    "You do one iteration more than asked for; tempting, because the start looks like a step to be counted. The start "
    "x = 0 costs no product; every iteration costs one.",
)
def goes_one_further(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations + 1)


@solve.mistake(
    "termination",
    "You stop as soon as the residual is longer than before; tempting, because it looks as if things got worse. The "
    "residual may go up on its way: what falls with every iteration is the bowl's height. Go on until it is 0.",
)
def stops_where_the_residual_rises(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        after = r - alpha * a_p
        if torch.dot(after, after) > rr:
            break
        x, p, r = x + alpha * p, after + torch.dot(after, after) / rr * p, after
    return x


@solve.mistake(
    "concept",
    "Your x starts at b; tempting, because r and p do. The residual b - A x is b only where x is 0: what you add up is "
    "the solution, and b on top of it.",
)
def starts_at_b(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return b + variant(matvec, b, iterations)


@solve.mistake(
    "concept",
    "Your step length has p . p on top; tempting, because p . A p stands below. The slope along p is p . r, which is "
    "r . r: p has the earlier directions in it, and is longer than r.",
)
def puts_p_on_top(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, alpha=lambda _r, p, a_p: torch.dot(p, p) / torch.dot(p, a_p))


@solve.mistake(
    "indexing",
    "You stop one iteration early; tempting, because the start looks like the first point. The start x = 0 costs no "
    "product; every iteration costs one, and as many as asked for are to be done.",
)
def stops_one_short(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations - 1)


# ---- enough_iterations -----------------------------------------------------------------------------------------------


def spectrum_and_tolerance(rng: Generator) -> tuple[float, float, float, float]:
    """Smallest and largest eigenvalue, damping, and the error that is allowed."""
    smallest, largest = float(rng.uniform(0.001, 0.004)), float(rng.uniform(1, 3))
    return smallest, largest, smallest * float(rng.uniform(0.5, 2)), float(rng.uniform(0.001, 0.05))


def in_four_cases(
    function: Count, smallest: float, largest: float, damping: float, tolerance: float
) -> tuple[int, int, int, int]:
    """As drawn; with eigenvalues close together and a strict tolerance; with large damping; with both."""
    return (
        function(smallest, largest, damping, tolerance),
        function(largest / 3, largest, damping, tolerance**3),
        function(smallest, largest, largest / 2, tolerance**3),
        function(largest / 3, largest, largest / 2, tolerance**9),
    )


enough_iterations = Check("enough_iterations", minutes=8, inputs=spectrum_and_tolerance, behavior=in_four_cases)


def error_bound(k: float, condition: float) -> float:
    """2 ((sqrt(condition) - 1) / (sqrt(condition) + 1))^k."""
    root = math.sqrt(condition)
    return float(2 * ((root - 1) / (root + 1)) ** k)


def is_the_smallest(k: float, smallest: float, largest: float, damping: float, tolerance: float) -> tuple[bool, bool]:
    """Whether k iterations are enough, by the bound, and whether one less would not be."""
    k = float(k)  # a tensor's powers would be in float32
    condition = (largest + damping) / (smallest + damping)
    enough = error_bound(k, condition) <= tolerance * (1 + 1e-9)
    return enough, k == 0 or error_bound(k - 1, condition) > tolerance * (1 - 1e-9)


@enough_iterations.property("Your function answers yes or no (True or False). Asked is how many iterations it takes.")
def is_a_count(student: Count, rng: Generator) -> bool:
    return not isinstance(student(*spectrum_and_tolerance(rng)), bool | np.bool_)


@enough_iterations.property("A number of iterations is a whole number.")
def is_whole(student: Count, rng: Generator) -> bool:
    return float(student(*spectrum_and_tolerance(rng))).is_integer()


@enough_iterations.property("After as many iterations as you say, the bound should be at or below the tolerance.")
def is_enough(student: Count, rng: Generator) -> bool:
    given = spectrum_and_tolerance(rng)
    return is_the_smallest(student(*given), *given)[0]


@enough_iterations.property("One iteration less should not be enough: you were asked for the smallest number.")
def is_no_more_than_enough(student: Count, rng: Generator) -> bool:
    given = spectrum_and_tolerance(rng)
    return is_the_smallest(student(*given), *given)[1]


@enough_iterations.property("Without damping it should be right as well.")
def counts_without_damping(student: Count, rng: Generator) -> bool:
    smallest, largest, _, tolerance = spectrum_and_tolerance(rng)
    given = smallest, largest, 0.0, tolerance
    return all(is_the_smallest(student(*given), *given))


@enough_iterations.property(
    "Where it takes thousands of iterations, your number is too small. Does a loop of yours end at a fixed count?"
)
def counts_to_thousands(student: Count, rng: Generator) -> bool:
    given = 1e-7, float(rng.uniform(1, 3)), 1e-7, 1e-6
    return all(is_the_smallest(student(*given), *given))


@enough_iterations.property(
    "Where the tolerance is 2 or more, 0 iterations should be enough: that is where the bound starts, and no number of "
    "iterations is negative."
)
def counts_from_zero(student: Count, rng: Generator) -> bool:
    smallest, largest, damping, _ = spectrum_and_tolerance(rng)
    return all(student(smallest, largest, damping, tolerance) == 0 for tolerance in (2.0, 50.0))


def iterations_for(bound_factor: float, root: float, tolerance: float) -> float:
    """The k, not rounded, for which bound_factor ((root - 1) / (root + 1))^k is the tolerance."""
    return math.log(tolerance / bound_factor) / math.log((root - 1) / (root + 1))


@enough_iterations.mistake(
    "concept",
    "You put the condition number where its square root belongs; tempting, because that is the count for steepest "
    "descent. The root is what conjugate gradient wins: with a condition number of 10,000, hundreds of iterations "
    "instead of tens of thousands.",
)
def forgets_the_root(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, (largest + damping) / (smallest + damping), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You leave the damping out; tempting, because the eigenvalues given are those of A. What is solved is "
    "(A + damping I) x = b, and its smallest eigenvalue is much larger.",
)
def leaves_out_the_damping(smallest: float, largest: float, _damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / smallest), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You take the damping itself as the smallest eigenvalue, and leave the largest as it is; tempting, because next to "
    "the damping the smallest hardly counts. Damping moves every eigenvalue up by the same amount: add it to both.",
)
def replaces_the_smallest(_smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / damping), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the smallest eigenvalue only; tempting, because next to the largest it hardly counts. It "
    "does where damping is large: A + damping I moves every eigenvalue up by the same amount.",
)
def damps_the_smallest_only(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the largest eigenvalue only; tempting, because the condition number has it on top. Damping "
    "helps at the bottom: A + damping I moves every eigenvalue up by the same amount.",
)
def damps_the_largest_only(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt((largest + damping) / smallest), tolerance))


@enough_iterations.mistake(
    "concept",
    "You count with half the root of the condition number times log(2 / tolerance); tempting, because the lesson says "
    "that the count is about that. About, for large condition numbers: turn the bound itself around.",
)
def takes_the_approximation(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    root = math.sqrt((largest + damping) / (smallest + damping))
    return math.ceil(0.5 * root * math.log(2 / tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the condition number; tempting, because the condition number is what the formula holds. "
    "Damping is added to A, that is, to each eigenvalue: it makes the condition number smaller.",
)
def damps_the_condition_number(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / smallest + damping), tolerance))


@enough_iterations.mistake(
    "order",
    "You take the logarithm of a negative number: your condition number is upside down, or the two terms of the rate's "
    "numerator are; tempting, because one divides by the other either way. The largest eigenvalue goes on top: the "
    "condition number is at least 1, and the rate lies between 0 and 1.",
)
def turns_the_condition_number_over(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt((smallest + damping) / (largest + damping)), tolerance))


@enough_iterations.mistake(
    "order",
    "You take the square roots first and add the damping to them; tempting, because the roots are what the formula "
    "holds. Damping is added to A, that is, to each eigenvalue; the root comes last.",
)
def damps_the_roots(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    root = (math.sqrt(largest) + damping) / (math.sqrt(smallest) + damping)
    return math.ceil(iterations_for(2, root, tolerance))


@enough_iterations.mistake(
    "indexing",
    "You round to the nearest whole number; tempting, because that is what round() does. Half of the time the bound is "
    "then still a little above the tolerance: a number of iterations that is enough is rounded up.",
)
def rounds_to_the_nearest(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return round(iterations_for(2, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "indexing",
    "You are one short: you round down, as int() does, or your loop ends at the last number that is not enough; "
    "tempting, because either looks like the place where the bound meets the tolerance. There it is still a little "
    "above: a number of iterations that is enough is rounded up.",
)
def rounds_down(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.floor(iterations_for(2, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "order",
    "You multiply the tolerance by the factor 2; tempting, because it stood in front. Brought to the other side it "
    "divides: 2 rate^k is at most the tolerance where rate^k is at most half of it.",
)
def brings_the_two_across(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(0.5, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "constant",
    "You leave out the factor 2 in front; tempting, because constants rarely matter. Here it costs a number of "
    "iterations that grows with the root of the condition number.",
)
def leaves_out_the_two(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(1, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


CHECKS = (softmax_fisher_product, fisher_product, solve, enough_iterations)
