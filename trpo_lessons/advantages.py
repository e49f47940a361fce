"""How much better an action was than usual: returns, generalised advantage estimation, value functions.

Reading order: after `envs`. Lesson 06, section 5.1.

All arrays are [T, E]: T steps of E environments side by side. A step can be the last one of its episode for two reasons
that mean opposite things. After a **termination** there is no future, and its value is zero. After a **truncation** (a
time limit, or simply the end of our sampling) the future exists and nobody has seen it: its value is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trpo_lessons.policies import FlatNetwork, mlp


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


class ValueFunction:
    """V(s): a tanh network fitted to returns by Adam, in units in which the returns have mean 0 and variance 1.

    The units follow the returns as the policy improves. When they change, the last layer is rescaled so that every
    prediction stays what it was (PopArt, van Hasselt et al., 2016), and one learning rate suits every task.
    """

    UNITS_RATE = 0.1  # weight of the newest batch in the running mean and variance of the returns

    def __init__(
        self,
        obs_dim: int,
        hidden: Sequence[int] = (64, 64),
        learning_rate: float = 1e-3,
        generator: torch.Generator | None = None,
        device: str = "cpu",
    ) -> None:
        self._network = FlatNetwork(mlp([obs_dim, *hidden, 1]))
        self._last_width = (obs_dim, *hidden)[-1]
        self._theta = self._network.initial_theta(0.01, generator).to(device).requires_grad_()
        self._optimizer = torch.optim.Adam([self._theta], lr=learning_rate)
        self._moments = torch.zeros(3, dtype=torch.float64)  # running sums of weight, return and squared return

    def __call__(self, obs: Tensor) -> Tensor:
        """V of each state, [N], for `obs` [N, obs_dim]; in units of the return, without gradient, on obs' device."""
        mean, std = self._units()
        with torch.no_grad():
            outputs = self._network(self._theta, obs.to(self._theta.device)).squeeze(-1)
            return (outputs * std + mean).to(obs.device)

    def fit(self, obs: Tensor, returns: Tensor, epochs: int, minibatch: int, generator: torch.Generator) -> None:
        """Least squares of V on `returns` [N] over `obs` [N, obs_dim]: `epochs` passes in shuffled minibatches.

        Raises ValueError when an input is not finite, before anything has changed.
        """
        if not (obs.isfinite().all() and returns.isfinite().all()):
            raise ValueError("cannot fit a value function to observations or returns that are not finite")
        self._change_units(returns)
        mean, std = self._units()
        targets = ((returns - mean) / std).to(self._theta)
        obs = obs.to(self._theta.device)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(obs), generator=generator).to(obs.device), minibatch):
                error = self._network(self._theta, obs[rows]).squeeze(-1) - targets[rows]
                (self._theta.grad,) = torch.autograd.grad(error.square().mean(), self._theta)
                self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next call and the next fit depend on, as named tensors."""
        adam = self._optimizer.state[self._theta] or {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(self._theta),
            "exp_avg_sq": torch.zeros_like(self._theta),
        }
        state = {"theta": self._theta.detach(), "moments": self._moments, **adam}
        return {name: tensor.clone() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict()`. Raises ValueError when the network has another shape."""
        if state["theta"].shape != self._theta.shape:
            raise ValueError(
                f"this value function has {len(self._theta)} parameters, the saved one {len(state['theta'])}"
            )
        with torch.no_grad():
            self._theta.copy_(state["theta"])
        self._moments = state["moments"].clone()
        self._optimizer.state.clear()
        if state["step"] > 0:
            self._optimizer.state[self._theta] = {k: state[k].clone() for k in ("step", "exp_avg", "exp_avg_sq")}

    def _units(self) -> tuple[float, float]:
        weight, first, second = self._moments.tolist()
        if weight == 0:
            return 0.0, 1.0
        mean = first / weight
        return mean, max(second / weight - mean**2, 1e-8) ** 0.5

    def _change_units(self, returns: Tensor) -> None:
        not_fitted_yet = self._moments[0] == 0
        mean_before, std_before = self._units()
        returns = returns.double()
        newest = torch.tensor([1.0, returns.mean().item(), returns.square().mean().item()], dtype=torch.float64)
        self._moments = torch.lerp(self._moments, newest, self.UNITS_RATE)
        if not_fitted_yet:
            return  # the first predictions mean nothing, and preserving them could start far from any return
        mean, std = self._units()
        with torch.no_grad():  # theta ends with the last layer's weights and its one bias
            self._theta[-1 - self._last_width :] *= std_before / std
            self._theta[-1] += (mean_before - mean) / std
