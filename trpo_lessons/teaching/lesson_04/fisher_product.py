"""Exercise fisher_product of lesson 04, Conjugate gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.kl import fisher_matrix, fisher_vector_product, gauss_newton_product
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, linear_policy, mlp_policy
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.checks.graphs import GraphCheck
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_04.shared import close

PolicyProduct = Callable[[Policy, Tensor, Tensor, Tensor], Tensor]


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
