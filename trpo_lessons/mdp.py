"""Finite Markov decision processes, solved exactly.

Reading order: after `distributions`. Lesson 01.

With a handful of states nothing has to be estimated: values and visitation frequencies solve linear systems, so every
equation of sections 2 and 3 can be checked to rounding error. Everything is a `torch.float64` tensor; numpy arrays and
nested lists are converted on the way in. One code path then serves plain numbers and automatic differentiation alike,
and eta is differentiable in the policy straight through the linear solve (equation 4).

A policy is a table `pi` [S, A] of probabilities. Where a docstring says [..., S, A], many policies can be evaluated at
once. The paper's rewards r(s) depend on the state only; Gymnasium's come with a transition. `r` [S, A], the expected
reward of an action, covers both, and no result of the paper changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = Tensor | npt.ArrayLike


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP: transitions `P` [S, A, S], rewards `r` [S, A], first states `rho0` [S], discount `gamma` in [0, 1).

    Raises ValueError when a shape does not fit, an entry is not finite, or a row of P or rho0 is not a distribution.
    """

    P: Tensor
    r: Tensor
    rho0: Tensor
    gamma: float

    def __post_init__(self) -> None:
        for name in ("P", "r", "rho0"):
            object.__setattr__(self, name, as_float64(getattr(self, name)).clone())
        if self.P.ndim != 3 or self.P.shape[0] != self.P.shape[2] or self.P.numel() == 0:
            raise ValueError(f"P has shape {tuple(self.P.shape)}, but [states, actions, states] is needed")
        for name, expected in (("r", (self.num_states, self.num_actions)), ("rho0", (self.num_states,))):
            if tuple(getattr(self, name).shape) != expected:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, but P needs {expected}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is {self.gamma}, but must be at least 0 and below 1")
        if not self.r.isfinite().all():
            raise ValueError("r holds a number that is not finite")
        check_distributions("P", self.P)
        check_distributions("rho0", self.rho0)

    @property
    def num_states(self) -> int:
        return self.P.shape[0]

    @property
    def num_actions(self) -> int:
        return self.P.shape[1]

    def policy(self, pi: Array) -> Tensor:
        """`pi` [..., S, A] as a tensor, or ValueError if it is not a policy for this MDP."""
        table = as_float64(pi)
        if table.shape[-2:] != self.r.shape:
            raise ValueError(f"the policy has shape {tuple(table.shape)}, but this MDP needs {tuple(self.r.shape)}")
        check_distributions("the policy", table, _likely_slip)
        return table


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate_policy` finds, float64; the names are the paper's. Leading dimensions are those of the policy."""

    eta: Tensor  # [...]        expected discounted return
    V: Tensor  # [..., S]     value of a state
    Q: Tensor  # [..., S, A]  value of an action in a state
    A: Tensor  # [..., S, A]  advantage, Q - V
    rho: Tensor  # [..., S]     discounted visitation frequencies; they sum to 1 / (1 - gamma)


def as_float64(values: Array) -> Tensor:
    """`values` as a float64 tensor; a tensor keeps its gradient."""
    return torch.as_tensor(values, dtype=torch.float64)


def check_distributions(name: str, table: Tensor, hint: Callable[[Tensor], str] = lambda _: "") -> None:
    """Raise ValueError unless every row (last axis) of `table` is finite, non-negative and sums to 1.

    `hint(table)` is added to the complaint.
    """
    rows = table.detach()
    total = rows.sum(-1)
    if not rows.isfinite().all():
        raise ValueError(f"{name} holds a number that is not finite{hint(rows)}")
    if (rows < 0).any():
        raise ValueError(f"{name} holds a negative probability, {rows.min():.3g}{hint(rows)}")
    if ((total - 1).abs() > 1e-9).any():
        worst = total.flatten()[(total - 1).abs().argmax()]
        raise ValueError(f"{name} has a row that sums to {worst:.12g}, but probabilities must sum to 1{hint(rows)}")


def _likely_slip(table: Tensor) -> str:
    """What a table [..., S, A] that is not a policy may have been meant as, to be added to the complaint."""
    if not table.isfinite().all():
        return "; exp of a logit above 709 is infinite, which softmax avoids"
    if (table < 0).any():
        return "; are these logits, of which softmax over the last axis would make probabilities?"
    if torch.allclose(table.sum(-2), torch.ones_like(table.sum(-2))):
        return "; its columns do: it was normalized over the states, and pi(a|s) sums to 1 over the actions"
    return ""


def evaluate_policy(mdp: TabularMDP, pi: Array) -> Evaluation:
    """Solve the MDP for the policy `pi` [..., S, A] (section 2). Raises ValueError where `pi` is no policy for it.

    V = r_pi + gamma P_pi V is the Bellman equation. Transposed it counts visits instead of values:
    rho = rho0 + gamma P_pi^T rho sums P(s_t = s) over t with weights gamma^t.
    """
    pi = mdp.policy(pi)
    P_pi = torch.einsum("...sa,sat->...st", pi, mdp.P)
    r_pi = (pi * mdp.r).sum(-1)
    bellman = torch.eye(mdp.num_states, dtype=torch.float64) - mdp.gamma * P_pi
    V = torch.linalg.solve(bellman, r_pi.unsqueeze(-1)).squeeze(-1)
    rho = torch.linalg.solve(bellman.mT, mdp.rho0.expand_as(V).unsqueeze(-1)).squeeze(-1)
    Q = mdp.r + mdp.gamma * torch.einsum("sat,...t->...sa", mdp.P, V)
    return Evaluation(eta=V @ mdp.rho0, V=V, Q=Q, A=Q - V.unsqueeze(-1), rho=rho)


def draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The outcome [N] that each of `uniforms` [N] in [0, 1) selects from its row of `probabilities` [N, K].

    A deterministic function (the inverse of the cumulative distribution), so equal uniforms are common random numbers.
    An outcome of probability zero is never drawn: dividing by the last sum makes it 1, above every uniform.
    """
    cumulative = probabilities.cumsum(-1)
    return (uniforms.unsqueeze(-1) >= cumulative / cumulative[..., -1:]).sum(-1)


def simulate(
    mdp: TabularMDP, pi: Array, num_trajectories: int, horizon: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Follow `pi` [S, A] for `horizon` steps, many times over: states and actions, integers [trajectories, horizon].

    What is left out after T steps is discounted by gamma^T.
    """
    pi = mdp.policy(pi)
    uniforms = as_float64(rng.random((2 * horizon, num_trajectories)))
    state = draw(mdp.rho0.expand(num_trajectories, -1), as_float64(rng.random(num_trajectories)))
    states, actions = [], []
    for t in range(horizon):
        action = draw(pi[state], uniforms[2 * t])
        states.append(state)
        actions.append(action)
        state = draw(mdp.P[state, action], uniforms[2 * t + 1])
    return torch.stack(states, dim=1), torch.stack(actions, dim=1)


def garnet(num_states: int, num_actions: int, branching: int, gamma: float, seed: int) -> TabularMDP:
    """A random MDP: each action leads to `branching` random states, rewards are normal, the first state is uniform.

    Raises ValueError unless 1 <= branching <= num_states.
    """
    if not 1 <= branching <= num_states:
        raise ValueError(f"branching is {branching}, but must be between 1 and the {num_states} states there are")
    rng = np.random.default_rng(seed)
    P = np.zeros((num_states, num_actions, num_states))
    for row in P.reshape(-1, num_states):
        row[rng.permutation(num_states)[:branching]] = rng.dirichlet(np.ones(branching))
    r = rng.standard_normal((num_states, num_actions))
    return TabularMDP(as_float64(P), as_float64(r), as_float64(np.full(num_states, 1 / num_states)), gamma)


def chain(num_states: int, gamma: float, slip: float = 0.1) -> TabularMDP:
    """A corridor. Action 0 steps left, action 1 right, and with probability `slip` the step goes the other way.

    Every step spent at the left end pays 0.1, at the right end 1; all start at the left end, so the small reward is
    near and the large one far.
    """
    landing = np.clip(np.arange(num_states)[:, None] + [-1, 1], 0, num_states - 1)
    intended = np.eye(num_states)[landing]  # [S, A, S]: where each step leads without a slip
    P = (1 - slip) * intended + slip * intended[:, ::-1]
    r = np.zeros((num_states, 2))
    r[0], r[-1] = 0.1, 1.0
    return TabularMDP(as_float64(P), as_float64(r), as_float64(np.eye(num_states)[0]), gamma)


def grid_world(height: int, width: int, gamma: float, slip: float = 0.1) -> TabularMDP:
    """A grid, states numbered row by row. Actions: 0 up, 1 right, 2 down, 3 left; walls stop a step.

    With probability `slip` the step goes in a random direction instead. All start in the first state; the last one
    pays 1 and leads back to the first whatever is done there.
    """
    cells = np.pad(np.arange(height * width).reshape(height, width), 1, mode="edge")  # a wall is the cell before it
    landing = np.stack((cells[:-2, 1:-1], cells[1:-1, 2:], cells[2:, 1:-1], cells[1:-1, :-2]), -1).reshape(-1, 4)
    intended = np.eye(height * width)[landing]  # [S, A, S]: where each step leads without a slip
    P = (1 - slip) * intended + slip * intended.mean(1, keepdims=True)
    P[-1] = np.eye(height * width)[0]
    r = np.zeros((height * width, 4))
    r[-1] = 1
    return TabularMDP(as_float64(P), as_float64(r), as_float64(np.eye(height * width)[0]), gamma)


def random_policy(mdp: TabularMDP, rng: np.random.Generator, concentration: float = 1.0) -> Tensor:
    """A policy [S, A] drawn from a Dirichlet distribution; a small `concentration` makes it nearly deterministic."""
    return as_float64(rng.dirichlet(np.full(mdp.num_actions, concentration), size=mdp.num_states))
