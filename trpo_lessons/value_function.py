"""How good a state is: V, a network fitted to returns.

Reading order: after `vine`. Lesson 06; the paper has no value function, Schulman et al. (2016) does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trpo_lessons.conjugate_gradient import conjugate_gradient
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.kl import mean_product
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.policies import FlatNetwork, layers_for
from trpo_lessons.single_path import PathRecord
from trpo_lessons.surrogate import Samples, States, StatesAnd, chunks, surrogate_value, value_and_gradient


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """1 - Var(targets - predictions) / Var(targets): 1 is perfect but for a constant. Nan if targets are equal."""
    targets = targets.double()
    variance = targets.var()
    if not variance > (1e-9 * targets.mean()) ** 2:  # the variance of equal numbers is rounding, and seldom 0
        return float("nan")
    return (1 - (targets - predictions.double()).var() / variance).item()


def values_along(
    path: PathRecord, statistics: RunningMoments, value: Callable[[Tensor], Tensor], chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """V of the state before each step and of the state it led to, both [T, E], as `advantages.gae` wants them.

    The state a step led to is the next row's, except where an episode was truncated (there it is the final observation,
    before the reset) and in the last row. After a termination the entry has no meaning, and gae ignores it.
    """
    of_chunks = [value(chunk.obs) for chunk in chunks(path.states, chunk_size)]
    values = torch.cat(of_chunks).view(path.rewards.T.shape).T
    after_last, after_cut = (value(statistics.normalise(obs)) for obs in (path.next_obs, path.final_obs))
    next_values = torch.cat([values[1:], after_last[None]])
    next_values[path.truncated] = after_cut
    return values, next_values


class ValueFunction:
    """V(s): a tanh network fitted to returns by Gauss-Newton steps.

    The error is linear in theta up close, as V(theta + d) - target = error + J d, and the least-squares d solves
    (J^T J / N + damping) d = -gradient. That is the TRPO step once more: J^T J v costs what a Fisher-vector product
    costs, conjugate gradient solves, a line search accepts. Schulman et al. (2016, section 5) fit V the same way. It
    needs no learning rate.

    V is learned in units in which the returns have about mean 0 and variance 1. The units follow the returns as the
    policy improves; when they change, after the first fit, the last layer is rescaled so that every prediction stays
    what it was (PopArt, van Hasselt et al., 2016).
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
        Raises ValueError when an input is not finite, or too large to compute with. After an error nothing has changed.
        """
        states = States(obs.to(self._theta.device)) if isinstance(obs, Tensor) else obs
        before = self._theta, self._moments
        try:
            self._change_units(returns)
            mean, std = self._units()
            targets = ((returns - mean) / std).to(self._theta)
            for _ in range(steps):
                self._theta = self._gauss_newton_step(StatesAnd(states, targets), damping, stride, chunk_size)
        except BaseException:
            self._theta, self._moments = before
            raise

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

    def _gauss_newton_step(self, fit: StatesAnd, damping: float, stride: int, chunk_size: int | None = None) -> Tensor:
        """Theta after one step, or as it was when no part of the step lowers the error."""

        def minus_errors(outputs: Tensor, chunk: StatesAnd) -> Tensor:
            targets: Tensor = chunk.also
            return -0.5 * (outputs - targets).square()

        def value(fraction: float) -> float:
            return surrogate_value(self._outputs, self._theta + fraction * step, fit, minus_errors, chunk_size)

        before, gradient = value_and_gradient(self._outputs, self._theta, fit, minus_errors, chunk_size)
        if not gradient.isfinite().all():  # nor is it where a single observation or return is not
            raise ValueError("cannot fit a value function to observations or returns that are not finite")
        product = mean_product(
            lambda at, chunk: (self._outputs(at, chunk.obs),), self._theta, fit[::stride], chunk_size
        )
        step = conjugate_gradient(lambda v: product(v) + damping * v, gradient).x
        search = backtracking_line_search(value, lambda after: after > before)
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
        if not newest.isfinite().all():
            raise ValueError("cannot fit a value function to returns that are not finite, or too large to be squared")
        self._moments = torch.lerp(self._moments, newest, self.UNITS_RATE)
        if not_fitted_yet:
            return  # the first predictions mean nothing, and preserving them could start far from any return
        mean, std = self._units()
        # Theta ends with the last layer's weights and its one bias.
        self._theta = self._theta.clone()
        self._theta[-1 - self._last_width :] *= std_before / std
        self._theta[-1] += (mean_before - mean) / std
