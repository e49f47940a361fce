"""How far apart two policies are, and the Fisher matrix that measures it up close.

Reading order: after `surrogate`. Lesson 03, equations 12 and 13, appendix C.

The Fisher matrix A is the Hessian, at theta_old, of the mean of KL(old || new). A policy of p parameters would need p^2
numbers to store it and conjugate gradient never asks for them: all it needs is the product A v.

**The product.** Write m(theta) for the outputs of the network (the parameters of the distributions), J for their
Jacobian and M for the Fisher matrix of the distributions in m, known in closed form. The KL's own gradient vanishes at
theta_old, so the Hessian is exactly J^T M J, and three cheap steps multiply by it: J v, then M, then J^T. Reverse mode
gives J^T u directly; J v comes from differentiating J^T u, a linear function of u, once more in u. Both graphs are
built once and kept, and a product then costs about as much as one gradient (`trpo-lessons bench` measures it): less
than the two ways that are better known, differentiating the KL twice and forward mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution, concatenated
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch, Samples, SamplesT, chunks, mean_over

MatrixVectorProduct = Callable[[Tensor], Tensor]
Metric = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


def mean_kl(
    policy: Policy, theta_old: Tensor, theta_new: Tensor, states: Samples, chunk_size: int | None = None
) -> float:
    """Mean of KL(old || new) over the states (equation 13), in nats."""

    def sum_of_kl(chunk: Samples) -> Tensor:
        return kl_in_each(policy, theta_old, theta_new, chunk.obs).double().sum()

    with torch.no_grad():
        return mean_over(states, sum_of_kl, chunk_size).item()


def max_kl(
    policy: Policy, theta_old: Tensor, theta_new: Tensor, states: Samples, chunk_size: int | None = None
) -> float:
    """Largest KL(old || new) among the states (equation 12, over sampled states instead of all), in nats."""
    with torch.no_grad():
        parts = [kl_in_each(policy, theta_old, theta_new, chunk.obs).max() for chunk in chunks(states, chunk_size)]
    return torch.stack(parts).max().item()


def kl_in_each(policy: Policy, theta_old: Tensor, theta_new: Tensor, obs: Tensor) -> Tensor:
    """KL(old || new) in each state, [N], in nats."""
    return policy(theta_old, obs).kl(policy(theta_new, obs))


def distributions_in(policy: Policy, theta: Tensor, states: Samples, chunk_size: int | None = None) -> Distribution:
    """What the policy says in each state, without gradient."""
    with torch.no_grad():
        return concatenated([policy(theta, chunk.obs) for chunk in chunks(states, chunk_size)])


def fisher_vector_product(
    policy: Policy, theta: Tensor, states: Samples, chunk_size: int | None = None
) -> MatrixVectorProduct:
    """v -> A v with the analytic Fisher matrix at theta (appendix C): the expectation over actions is exact.

    The returned function maps [num_parameters] to [num_parameters]. With chunks, graphs are rebuilt for every product
    instead of kept, which bounds the memory and costs about twice the time.
    """

    def product(chunk: Samples) -> MatrixVectorProduct:
        at = theta.detach().requires_grad_()
        distribution = policy(at, chunk.obs)
        return gauss_newton_product(at, distribution.parameters, distribution.detach().fisher_metric)

    return mean_product(product, states, chunk_size)


def empirical_fisher_vector_product(
    policy: Policy, theta: Tensor, states: Batch, chunk_size: int | None = None
) -> MatrixVectorProduct:
    """v -> A v with the empirical Fisher matrix: the mean of grad log pi grad log pi^T at the actions that were taken.

    Same shapes as `fisher_vector_product`. It needs no closed form, but has the sampling noise of the actions.
    """

    def product(chunk: Batch) -> MatrixVectorProduct:
        at = theta.detach().requires_grad_()
        log_prob = policy(at, chunk.obs).log_prob(chunk.actions)
        return gauss_newton_product(at, (log_prob,))

    return mean_product(product, states, chunk_size)


def fisher_matrix(policy: Policy, theta: Tensor, obs: Tensor) -> Tensor:
    """The analytic Fisher matrix written out, [num_parameters, num_parameters]: the Hessian of the mean KL, literally.

    For small policies only. Its cost grows with the square of the number of parameters; it is here to be compared with.
    """
    old = policy(theta, obs).detach()
    hessian: Tensor = torch.func.hessian(lambda new: old.kl(policy(new, obs)).mean())(theta.detach())
    return hessian


def gauss_newton_product(
    theta: Tensor, outputs: tuple[Tensor, ...], metric: Metric = lambda tangents: tangents
) -> MatrixVectorProduct:
    """v -> J^T M J v, where J is the Jacobian of `outputs` in `theta` and `metric` multiplies by M (by default M = 1).

    `outputs` must have been computed from `theta` [num_parameters], which must require a gradient; their graph is kept.
    """
    # J^T u for a placeholder u. It is linear in u, so its derivative in u does not depend on the value: zeros will do.
    u = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
    (pulled_back,) = torch.autograd.grad(outputs, theta, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        pushed_forward = torch.autograd.grad(pulled_back, u, v, retain_graph=True)
        with torch.no_grad():
            measured = metric(pushed_forward)
        (result,) = torch.autograd.grad(outputs, theta, measured, retain_graph=True)
        return result

    return product


def mean_product(
    product: Callable[[SamplesT], MatrixVectorProduct], states: SamplesT, chunk_size: int | None
) -> MatrixVectorProduct:
    """The mean over states of per-chunk products; a single chunk keeps its graph from one product to the next."""
    if chunk_size is None or chunk_size >= len(states):
        whole = product(states)
        return lambda v: whole(v) / len(states)
    return lambda v: mean_over(states, lambda chunk: product(chunk)(v), chunk_size).to(v.dtype)
