"""How much better an action was than usual: returns, generalised advantage estimation, value functions.

Reading order: after `envs`. Lesson 06, section 5.1.

All arrays are [T, E]: T steps of E environments side by side. A step can be the last one of its episode for two reasons
that mean opposite things. After a **termination** there is no future, and its value is zero. After a **truncation** (a
time limit, or simply the end of our sampling) the future exists and nobody has seen it: its value is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lessons.conjugate_gradient import conjugate_gradient
from trpo_lessons.kl import mean_product
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.policies import FlatNetwork, layers_for
from trpo_lessons.surrogate import Samples, States, StatesAnd, chunks, mean_over


def discounted_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> Tensor:
    """Discounted sum of rewards from every step to the end of its episode, [T, E].

    `next_values` [T, E] is the value of the state that each step led to, before any reset. It is used where an episode
    is truncated and at the last row; pass zeros for returns without a value function, as in the paper.
    """
    rows = torch.empty_like(rewards)
    future = next_values[-1]
    for t in reversed(range(len(rewards))):
        future = torch.where(truncated[t], next_values[t], future)
        future = rewards[t] + gamma * torch.where(terminated[t], 0.0, future)
        rows[t] = future
    return rows


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates, [T, E]: Schulman et al. (2016), equation 16.

    A_t = sum_k (gamma lam)^k residual_{t+k}, with residual_t = r_t + gamma V(s_{t+1}) - V(s_t), within one episode.
    `values` [T, E] is V(s_t); `next_values` [T, E] is V of the state that the step led to, before any reset.
    lam = 1 gives discounted returns minus values (no bias from V), lam = 0 the one-step residual (least variance).
    """
    residuals = rewards + gamma * next_values * ~terminated - values
    decay = gamma * lam * (~(terminated | truncated)).to(rewards.dtype)
    rows = torch.empty_like(rewards)
    later = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        later = residuals[t] + decay[t] * later
        rows[t] = later
    return rows


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """1 - Var(targets - predictions) / Var(targets): 1 is perfect, 0 no better than a constant. Nan if all equal."""
    variance = targets.double().var()
    return (1 - (targets.double() - predictions.double()).var() / variance).item() if variance > 0 else float("nan")


def unit_of(deviation: Tensor, mean: Tensor) -> Tensor:
    """The unit in which numbers of this standard deviation and mean have variance 1, however small they are.

    Numbers that differ by rounding alone are constant; dividing by their deviation would make signals of it. Their unit
    is 1.
    """
    return torch.where(deviation > 1e-9 * mean.abs(), deviation, torch.ones_like(deviation))


@dataclass(frozen=True)
class _Fit(StatesAnd):
    """States, and what V should say in each of them, [N]."""

    targets: Tensor


class ValueFunction:
    """V(s): a tanh network fitted to returns by Gauss-Newton steps.

    The error is linear in theta up close, as V(theta + d) - target = error + J d, and the least-squares d solves
    (J^T J / N + damping) d = -gradient. That is the TRPO step once more: J^T J v costs what a Fisher-vector product
    costs, conjugate gradient solves, a line search accepts. Schulman et al. (2016, section 5) fit V the same way. It
    needs no learning rate, and two such steps fit better than dozens of minibatches of Adam, in less time.

    V is learned in units in which the returns have mean 0 and variance 1. The units follow the returns as the policy
    improves; when they change, the last layer is rescaled so that every prediction stays what it was (PopArt, van
    Hasselt et al., 2016).
    """

    UNITS_RATE = 0.1  # weight of the newest batch in the running mean and variance of the returns

    def __init__(
        self,
        obs_shape: int | Sequence[int],
        hidden: Sequence[int] = (64, 64),
        generator: torch.Generator | None = None,
        device: str = "cpu",
    ) -> None:
        """obs_shape: the length of observation vectors, or that of images (channels, height, width)."""
        layers = layers_for((obs_shape,) if isinstance(obs_shape, int) else obs_shape, hidden, 1)
        self._network = FlatNetwork(layers)
        self._last_width = layers[-1].shapes[0][1]
        self._theta = self._network.initial_theta(0.01, generator).to(device)
        self._moments = torch.zeros(3, dtype=torch.float64)  # running sums of weight, return and squared return

    def __call__(self, obs: Tensor) -> Tensor:
        """V of each state, [N], for `obs` [N, *obs_shape]; in units of the return, without gradient, on obs' device."""
        mean, std = self._units()
        with torch.no_grad():
            return (self._outputs(self._theta, obs.to(self._theta.device)) * std + mean).to(obs.device)

    def fit(
        self,
        obs: Tensor | Samples,
        returns: Tensor,
        steps: int = 2,
        damping: float = 0.01,
        stride: int = 2,
        chunk_size: int | None = None,
    ) -> None:
        """Least squares of V on `returns` [N] over `obs` [N, *obs_shape], by `steps` Gauss-Newton steps.

        `stride` thins the states for the products J^T J v alone, as `fisher_stride` does for the policy, and
        `chunk_size` bounds how many are processed at once. Samples must be on the device of the value function.
        Raises ValueError when an input is not finite, before anything has changed.
        """
        states = States(obs.to(self._theta.device)) if isinstance(obs, Tensor) else obs
        if not (
            returns.isfinite().all()
            and all(torch.stack(part.obs.aminmax()).isfinite().all() for part in chunks(states, chunk_size))
        ):
            raise ValueError("cannot fit a value function to observations or returns that are not finite")
        self._change_units(returns)
        mean, std = self._units()
        targets = ((returns - mean) / std).to(self._theta)
        for _ in range(steps):
            self._theta = self._gauss_newton_step(_Fit(states, targets), damping, stride, chunk_size)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next call and the next fit depend on, as named tensors."""
        return {"theta": self._theta.clone(), "moments": self._moments.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict()`. Raises ValueError when the network has another shape."""
        if state["theta"].shape != self._theta.shape:
            raise ValueError(
                f"this value function has {len(self._theta)} parameters, the saved one {len(state['theta'])}"
            )
        self._theta = state["theta"].to(self._theta).clone()
        self._moments = state["moments"].clone()

    def _outputs(self, theta: Tensor, obs: Tensor) -> Tensor:
        return self._network(theta, obs).squeeze(-1)

    def _gauss_newton_step(self, samples: _Fit, damping: float, stride: int, chunk_size: int | None = None) -> Tensor:
        """Theta after one step, or as it was when no part of the step lowers the error."""

        def loss(theta: Tensor, chunk: _Fit) -> Tensor:
            return 0.5 * (self._outputs(theta, chunk.obs) - chunk.targets).square().sum()

        def gradient_and_loss(chunk: _Fit) -> Tensor:
            at = self._theta.clone().requires_grad_()
            error = loss(at, chunk)
            return torch.cat([*torch.autograd.grad(error, at), error.detach()[None]]).double()

        def outputs(at: Tensor, chunk: _Fit) -> tuple[Tensor]:
            return (self._outputs(at, chunk.obs),)

        def loss_after(fraction: float) -> float:
            theta = self._theta + fraction * step
            return mean_over(samples, lambda chunk: loss(theta, chunk), chunk_size).item()

        found = mean_over(samples, gradient_and_loss, chunk_size)
        gradient, before = found[:-1].to(self._theta.dtype), found[-1].item()
        curvature = mean_product(outputs, self._theta, samples[::stride], chunk_size)
        step = conjugate_gradient(lambda v: curvature(v) + damping * v, -gradient).x
        with torch.no_grad():
            search = backtracking_line_search(loss_after, lambda after: after < before)
        return self._theta + search.fraction * step if search.accepted else self._theta  # 0 * inf is not 0

    def _units(self) -> tuple[float, float]:
        weight, first, second = self._moments.tolist()
        if weight == 0:
            return 0.0, 1.0
        mean = first / weight
        variance = second / weight - mean**2
        return mean, variance**0.5 if variance > (1e-7 * mean) ** 2 else 1.0  # a difference of squares rounds so much

    def _change_units(self, returns: Tensor) -> None:
        not_fitted_yet = self._moments[0] == 0
        mean_before, std_before = self._units()
        returns = returns.double()
        newest = torch.tensor([1.0, returns.mean().item(), returns.square().mean().item()], dtype=torch.float64)
        self._moments = torch.lerp(self._moments, newest, self.UNITS_RATE)
        if not_fitted_yet:
            return  # the first predictions mean nothing, and preserving them could start far from any return
        mean, std = self._units()
        # Theta ends with the last layer's weights and its one bias.
        self._theta = self._theta.clone()
        self._theta[-1 - self._last_width :] *= std_before / std
        self._theta[-1] += (mean_before - mean) / std
