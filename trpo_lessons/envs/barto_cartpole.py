"""The cart-pole of the paper's section 8.1: Barto, Sutton and Anderson (1983) with a continuous force."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from trpo_lessons.envs.base import Floats
from trpo_lessons.envs.cartpole import MAX_FORCE, CartPoleConstants, CartPoleVectorEnv
from trpo_lessons.envs.random_state import Seed

FRICTION = CartPoleConstants(cart_friction=5e-4, hinge_friction=2e-6)
"""The appendix of Barto, Sutton and Anderson (1983), friction included (gravity printed there as -9.8 points down)."""


class BartoCartPole(CartPoleVectorEnv):
    """Push the cart with a force of your choice. Actions [E, 1] in newtons; the dynamics clip them to +-10 N. What a
    policy draws is scaled to the action space (`single_path.for_environment`): its first standard deviation is 10 N.

    The paper gives neither reward nor horizon. Here, as in CartPole-v1: +1 for every step, the last included; the
    episode ends when the cart is more than 2.4 m from the middle or the pole more than 12 degrees from upright, and is
    cut after 500 steps (10 s). Episodes start with every coordinate uniform in +-0.05: from exact rest upright, where
    Barto, Sutton and Anderson start, a policy that never pushes would score 500.
    """

    def __init__(self, num_envs: int, *, seed: Seed = None) -> None:
        """Seeds: see `reset`."""
        force = spaces.Box(-MAX_FORCE, MAX_FORCE, shape=(1,), dtype=np.float32)
        super().__init__("barto-cartpole", num_envs, force, FRICTION, seed=seed)

    def _force(self, actions: NDArray[Any]) -> Floats:
        return np.clip(actions[:, 0].astype(np.float64), -MAX_FORCE, MAX_FORCE)
