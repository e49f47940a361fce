"""Both Atari environments keep every promise of the others: the contract, on a game whose start shows its seed."""

from typing import ClassVar

import numpy as np
import pytest
from test_envs_contract import RestorableContract, VectorEnvContract


class AtariContract(VectorEnvContract):
    task = "enduro"
    obs_dtype = np.uint8
    always_told: ClassVar[set[str]] = {"lives", "life_lost"}

    @pytest.fixture(autouse=True)
    def _close(self):
        self.opened = []
        yield
        for env in self.opened:
            env.close()

    def make(self, num_envs=None, **kwargs):
        env = super().make(num_envs, **kwargs)
        self.opened.append(env)
        return env


class TestWorkers(AtariContract, RestorableContract):
    def damaged_states(self, state):
        """No array is of real numbers but the record of returns; the emulator has a checksum instead."""
        flipped = state["emulator"].copy()
        flipped[2, 5000] ^= 1
        shorter = state["emulator"].copy()
        shorter[0, 0] ^= 1
        without = {name: array for name, array in state.items() if name != "screen"}
        return {
            **super().damaged_states(state),
            "missing": (without, r"missing \['screen'\]"),
            "not finite": ({**state, "emulator": flipped}, "the saved state of the emulator is damaged"),
            "of another length": ({**state, "emulator": shorter}, "the saved state of the emulator is damaged"),
            "no emulator": (
                {**state, "emulator": np.zeros_like(flipped)},
                "the saved state of the emulator is damaged",
            ),
            "another frame size": ({**state, "frames": state["frames"][..., :-1]}, "frames is uint8"),
        }


class TestNative(AtariContract):
    """Its clock cannot be moved, so its games are made shorter."""

    settings: ClassVar[dict] = {"native": True}
    steps = 60

    def make(self, num_envs=None, **kwargs):
        env = super().make(num_envs, **kwargs)
        env.max_episode_steps = 25
        return env
