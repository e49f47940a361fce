"""How far apart two policies are, and the Fisher matrix that measures it up close.

Reading order: after `surrogate`. Lesson 03, equations 12 and 13, appendix C.

The Fisher matrix A is the Hessian, at theta_old, of the mean of KL(old || new). A policy of p parameters would need p^2
numbers to store it and conjugate gradient never asks for them: all it needs is the product A v.

**The product.** Write m(theta) for the outputs of the network (the parameters of the distributions), J for their
Jacobian and M for the Fisher matrix of the distributions in m, known in closed form. The KL's own gradient vanishes at
theta_old, so the Hessian is exactly J^T M J, and three cheap steps multiply by it: v, J v, M J v, J^T M J v.
`fisher_product` below is these three lines. What follows it saves time where one matrix has many products:

    once for all products   reverse mode gives J^T u, and J v comes from differentiating J^T u, a linear function of u,
                            once more in u. Both graphs are built once and kept, and a product then costs about as much
                            as a gradient (`trpo-lessons bench` measures it), about half of the three lines
    chunk by chunk          where the graphs of all states do not fit in memory, forward mode, which keeps none: the
                            three lines again, with one pass of the network for J and J^T together
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from trpo_lessons.distributions import Distribution, concatenated
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch, RowsT, Samples, chunks, mean_over

MatrixVectorProduct = Callable[[Tensor], Tensor]
Outputs = tuple[Tensor, ...]
OutputsOf = Callable[[Tensor, Any], Outputs]  # theta, samples -> what their Jacobian J is taken of, tensors [N, ...]
Metric = Callable[[Outputs, Outputs], Outputs]  # outputs, and a direction in their space -> M times the direction


_FORWARD_MODE = Lock()  # torch has one for all threads, and refuses to enter it twice


def mean_kl(
    policy: Policy, theta_old: Tensor, theta_new: Tensor, states: Samples, chunk_size: int | None = None
) -> float:
    """Mean of KL(old || new) over the states (equation 13), in nats.

    Raises ValueError when there are no states.
    """

    def sum_of_kl(chunk: Samples) -> Tensor:
        return kl_in_each(policy, theta_old, theta_new, chunk).double().sum()

    with torch.no_grad():
        return mean_over(states, sum_of_kl, chunk_size).item()


def max_kl(
    policy: Policy, theta_old: Tensor, theta_new: Tensor, states: Samples, chunk_size: int | None = None
) -> float:
    """Largest KL(old || new) among the states (equation 12, over sampled states instead of all), in nats.

    Raises ValueError when there are no states.
    """
    with torch.no_grad():
        parts = [kl_in_each(policy, theta_old, theta_new, chunk).max() for chunk in chunks(states, chunk_size)]
    return torch.stack(parts).max().item()


def kl_in_each(policy: Policy, theta_old: Tensor, theta_new: Tensor, states: Samples) -> Tensor:
    """KL(old || new) in each state, [N], in nats."""
    return policy(theta_old, states.obs).kl(policy(theta_new, states.obs))


def distributions_in(policy: Policy, theta: Tensor, states: Samples, chunk_size: int | None = None) -> Distribution:
    """The policy's distributions at theta in all N states, in their order, without gradient.

    Raises ValueError when there are no states.
    """
    with torch.no_grad():
        return concatenated([policy(theta, chunk.obs) for chunk in chunks(states, chunk_size)])


def fisher_matrix(policy: Policy, theta: Tensor, obs: Tensor) -> Tensor:
    """The analytic Fisher matrix written out, [num_parameters, num_parameters]: the Hessian of the mean KL, literally.

    For small policies only. Its cost grows with the square of the number of parameters; it is here to be compared with.
    """
    old = policy(theta, obs).detach()
    hessian: Tensor = torch.func.hessian(lambda new: old.kl(policy(new, obs)).mean())(theta.detach())
    return hessian


def fisher_product(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    """`fisher_matrix` times v [num_parameters] without the matrix: the short form, to be read and compared with."""

    def outputs(at: Tensor) -> Outputs:
        return policy(at, obs).parameters

    J_v = torch.func.jvp(outputs, (theta,), (v,))[1]
    M_J_v = policy(theta, obs).fisher_metric(J_v)
    (JT_M_J_v,) = torch.func.vjp(outputs, theta)[1](M_J_v)
    product: Tensor = JT_M_J_v / len(obs)
    return product


def fisher_vector_product(
    policy: Policy, theta: Tensor, states: Samples, chunk_size: int | None = None
) -> MatrixVectorProduct:
    """v -> A v with the analytic Fisher matrix at theta (appendix C): the expectation over actions is exact.

    The returned function maps [num_parameters] to [num_parameters].
    """
    kind = policy(theta, states[:1].obs).detach()

    def outputs(at: Tensor, chunk: Samples) -> Outputs:
        return policy(at, chunk.obs).parameters

    def metric(parameters: Outputs, tangents: Outputs) -> Outputs:
        return kind.with_parameters(*parameters).fisher_metric(tangents)

    return mean_product(outputs, theta, states, chunk_size, metric)


def empirical_fisher_vector_product(
    policy: Policy, theta: Tensor, states: Batch, chunk_size: int | None = None
) -> MatrixVectorProduct:
    """v -> A v with the empirical Fisher matrix: the mean of grad log pi grad log pi^T at the actions that were taken.

    Same shapes as `fisher_vector_product`. It needs no closed form, but has the sampling noise of the actions.
    """

    def outputs(at: Tensor, chunk: Batch) -> Outputs:
        return (policy(at, chunk.obs).log_prob(chunk.actions),)

    return mean_product(outputs, theta, states, chunk_size)


def identity(_outputs: Outputs, tangents: Outputs) -> Outputs:
    """The metric M = 1: the empirical Fisher matrix is the mean of J^T J, of which J's rows are the scores."""
    return tangents


def mean_product(
    outputs: OutputsOf, theta: Tensor, states: RowsT, chunk_size: int | None = None, metric: Metric = identity
) -> MatrixVectorProduct:
    """v -> J^T M J v / N, where J is the Jacobian in theta of `outputs(theta, states)`, tensors [N, ...].

    All states at once are a graph that is built once and serves every product. Chunks bound the memory: a product then
    builds and drops the graph of one chunk after the other, in forward mode, which costs half as much again.
    """
    if chunk_size is None or chunk_size >= len(states):
        at = theta.detach().requires_grad_()
        whole = gauss_newton_product(at, outputs(at, states), metric)
        return lambda v: mean_over(states, lambda _: whole(v)).to(v.dtype)

    def product(v: Tensor) -> Tensor:
        def of_chunk(chunk: RowsT) -> Tensor:
            return forward_mode_product(lambda at: outputs(at, chunk), theta, v, metric)

        return mean_over(states, of_chunk, chunk_size).to(v.dtype)

    return product


def gauss_newton_product(theta: Tensor, outputs: Outputs, metric: Metric = identity) -> MatrixVectorProduct:
    """v -> J^T M J v, where J is the Jacobian of `outputs` in `theta`, and `metric(outputs, .)` multiplies by M.

    `outputs` must have been computed from `theta` [num_parameters], which must require a gradient; their graph is kept.
    """
    # J^T u for a placeholder u. It is linear in u, so its derivative in u does not depend on the value: zeros will do.
    u = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
    (pulled_back,) = torch.autograd.grad(outputs, theta, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        pushed_forward = torch.autograd.grad(pulled_back, u, v, retain_graph=True)
        with torch.no_grad():
            measured = metric(outputs, pushed_forward)
        (result,) = torch.autograd.grad(outputs, theta, measured, retain_graph=True)
        return result

    return product


def forward_mode_product(
    outputs_at: Callable[[Tensor], Outputs], theta: Tensor, v: Tensor, metric: Metric = identity
) -> Tensor:
    """J^T M J v as by `gauss_newton_product`, for a single v: J v comes along with the outputs, in forward mode."""
    at = theta.detach().requires_grad_()
    with _FORWARD_MODE, forward_ad.dual_level():
        dual = forward_ad.make_dual(at, v)  # type: ignore[no-untyped-call]
        pairs = [forward_ad.unpack_dual(output) for output in outputs_at(dual)]  # type: ignore[no-untyped-call]
        outputs = tuple(pair.primal for pair in pairs)
        pushed_forward = tuple(pair.tangent.detach() for pair in pairs)
    with torch.no_grad():
        measured = metric(outputs, pushed_forward)
    (result,) = torch.autograd.grad(outputs, at, measured)
    return result
