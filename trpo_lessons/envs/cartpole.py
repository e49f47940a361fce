"""The cart and pole of Barto, Sutton and Anderson (1983), all copies at once, and CartPole-v1 made of it."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, State
from trpo_lessons.envs.random_state import Seed

MAX_POSITION = 2.4  # m from the middle of the track
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad from upright
MAX_FORCE = 10.0  # N


@dataclass(frozen=True)
class CartPoleConstants:
    """Barto, Sutton and Anderson (1983), appendix. Friction is in their equations and left out of CartPole-v1."""

    gravity: float = 9.8  # m/s²
    cart_mass: float = 1.0  # kg
    pole_mass: float = 0.1  # kg
    half_length: float = 0.5  # m, from the hinge to the middle of the pole
    time_step: float = 0.02  # s
    cart_friction: float = 0.0  # N, against the direction of motion
    hinge_friction: float = 0.0  # N m s


def euler_step(state: Floats, force: Floats, constants: CartPoleConstants) -> Floats:
    """The state [E, 4] = (x, dx/dt, angle, dangle/dt) one time step later, under a horizontal force [E] in newtons.

    Explicit Euler on the equations of Barto, Sutton and Anderson (1983). The order of operations is that of
    Gymnasium's CartPole-v1, because a different order rounds differently.
    """
    c = constants
    x, x_dot, angle, angle_dot = state.T
    total_mass, pole_moment = c.pole_mass + c.cart_mass, c.pole_mass * c.half_length
    cos, sin = np.cos(angle), np.sin(angle)
    push = (force + pole_moment * np.square(angle_dot) * sin - c.cart_friction * np.sign(x_dot)) / total_mass
    angle_acceleration = (c.gravity * sin - cos * push - c.hinge_friction * angle_dot / pole_moment) / (
        c.half_length * (4.0 / 3.0 - c.pole_mass * np.square(cos) / total_mass)
    )
    x_acceleration = push - pole_moment * angle_acceleration * cos / total_mass
    return np.stack(
        (
            x + c.time_step * x_dot,
            x_dot + c.time_step * x_acceleration,
            angle + c.time_step * angle_dot,
            angle_dot + c.time_step * angle_acceleration,
        ),
        axis=1,
    )


def has_fallen(state: Floats) -> Bools:
    """True [E] where the cart left the track or the pole is more than 12 degrees from upright."""
    return (np.abs(state[:, 0]) > MAX_POSITION) | (np.abs(state[:, 2]) > MAX_ANGLE)


class CartPoleVectorEnv(RestorableVectorEnv):
    """What the two cart-poles share: Barto's cart and pole, a start near the middle, +1 for every step, 500 at most.

    A subclass says how an action pushes the cart.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        action_space: spaces.Box | spaces.Discrete,
        constants: CartPoleConstants,
        *,
        seed: Seed = None,
    ) -> None:
        """Seeds: see `reset`."""
        # Twice the limits for the position and the angle, as in CartPole-v1, so that a final observation still fits.
        high = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf])
        observation_space = spaces.Box(-high, high, dtype=np.float64)
        super().__init__(task, num_envs, observation_space, action_space, max_episode_steps=500, seed=seed)
        self.constants = constants
        self._state = np.zeros((num_envs, 4))

    @abstractmethod
    def _force(self, actions: NDArray[Any]) -> Floats:
        """The horizontal force on the cart in newtons, [E]."""

    def _physics(self) -> State:
        return {"cart_pole": self._state}

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        for row in rows:
            self._state[row] = self._generators[row].uniform(-0.05, 0.05, size=4)

    def _advance(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Bools]:
        self._state[...] = euler_step(self._state, self._force(actions), self.constants)
        return self._observe(), np.ones(self.num_envs), has_fallen(self._state)

    def _observe(self) -> Floats:
        return self._state.copy()


class CartPole(CartPoleVectorEnv):
    """CartPole-v1: push the cart left (0) or right (1) with 10 N; no friction.

    Observations [E, 4] are float64, as everywhere in this package, but rounded to float32 first, as Gymnasium's are:
    the same seed and actions give the same numbers as `gymnasium.make("CartPole-v1")`.
    """

    def __init__(self, num_envs: int, *, seed: Seed = None) -> None:
        """Seeds: see `reset`."""
        super().__init__("cartpole", num_envs, spaces.Discrete(2), CartPoleConstants(), seed=seed)

    def _force(self, actions: NDArray[Any]) -> Floats:
        return np.where(actions == 1, MAX_FORCE, -MAX_FORCE)

    def _observe(self) -> Floats:
        return self._state.astype(np.float32).astype(np.float64)
