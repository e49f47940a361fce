"""Gymnasium environments as simple as can be; `gym:toy_envs:Dot-v0` is a task in any process that finds this file."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Endless(gymnasium.Env[NDArray[np.float32], int]):
    """Counts its steps and never ends; each is worth 1."""

    observation_space = spaces.Box(0, np.inf, shape=(1,), dtype=np.float32)
    action_space = spaces.Discrete(2)
    t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full(1, self.t, dtype=np.float32), 1.0, False, False, {}


class Dot(Endless):
    """The same, seen as a red square that moves right by a pixel each step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own idiom)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def render(self) -> Any:
        picture = np.full((40, 100, 3), 255, dtype=np.uint8)
        picture[10:20, self.t : self.t + 10] = (255, 0, 0)
        return picture


class Odd(Endless):
    """Observations [2, 3], actions from 5 to 7, or forces between -2 and 4."""

    observation_space = spaces.Box(-1, 1, shape=(2, 3), dtype=np.float32)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, forces: bool = False) -> None:
        if forces:
            self.action_space = spaces.Box(-2, 4, shape=(2, 1), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        return np.zeros((2, 3), dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        obs = self.np_random.uniform(-1, 1, (2, 3)).astype(np.float32)
        return obs, 1.0, bool(obs[0, 0] > 0.8), False, {}


class Fragile(Endless):
    """Its tenth step fails, in a function of its own."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        outcome = super().step(action)
        if self.t == 10:
            self.fail()
        return outcome

    def fail(self) -> None:
        raise ValueError("the wind\ntunnel is gone")


class Undefined(Endless):
    """Episodes of five steps, each worth NaN."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, _, _, infos = super().step(action)
        return obs, float("nan"), self.t == 5, False, infos


class Unmakeable(Endless):
    def __init__(self) -> None:
        raise KeyError("no such map")


gymnasium.register("Odd-v0", Odd, max_episode_steps=20)
gymnasium.register("OddForces-v0", Odd, max_episode_steps=20, kwargs={"forces": True})
gymnasium.register("Fragile-v0", Fragile)
gymnasium.register("Unmakeable-v0", Unmakeable)
gymnasium.register("Undefined-v0", Undefined)
gymnasium.register("Endless-v0", Endless)
gymnasium.register("Dot-v0", Dot, max_episode_steps=30)
