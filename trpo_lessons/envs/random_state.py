"""Numpy generators as rows of plain numbers, so that a saved state can hold them and be indexed like any array."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

COLUMNS = 6
"""128-bit state (2 words), 128-bit increment (2 words), a flag for a buffered 32-bit draw, and that draw."""

_LOW_WORD = (1 << 64) - 1


Seed = int | Sequence[int | None] | None
"""An int seeds copy i with seed + i, a sequence gives each copy its own seed, None takes entropy from the system."""


def one_seed_each(num_envs: int, seed: Seed) -> list[int | None]:
    """The seed of every copy, as Gymnasium's vector environments understand `seed`.

    Raises ValueError when a sequence does not have num_envs entries or a seed is negative.
    """
    if seed is None or isinstance(seed, (int, np.integer)):
        seeds = [None if seed is None else int(seed) + i for i in range(num_envs)]
    else:
        seeds = [None if each is None else int(each) for each in seed]
    if len(seeds) != num_envs:
        raise ValueError(f"{len(seeds)} seeds were given for {num_envs} environments; give one seed, or one for each")
    negative = [each for each in seeds if each is not None and each < 0]
    if negative:
        raise ValueError(f"a seed must be 0 or more, not {negative[0]}")
    return seeds


def derived_seeds(seed: int, purpose: str, count: int) -> list[int]:
    """`count` seeds for one purpose of a run, each below 2**31, which every environment accepts.

    Copies seeded with seed, seed + 1, ... share most of their episodes with those of the next seed, and runs with seeds
    0 and 1 would not be independent. These differ for every seed, every purpose and every copy, and the seed of copy i
    does not depend on how many copies there are.
    """
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    words = np.random.SeedSequence([seed, word]).generate_state(count)
    return [int(each) >> 1 for each in words]


def make_generators(num_envs: int, seed: Seed = None) -> list[np.random.Generator]:
    """One generator for each copy; see `Seed`. Raises ValueError as `one_seed_each` does."""
    return [seeding.np_random(each)[0] for each in one_seed_each(num_envs, seed)]


def pack_generators(generators: Sequence[np.random.Generator]) -> NDArray[np.uint64]:
    """The complete states of E PCG64 generators as uint64 [E, 6]; `put_back` is the inverse.

    Raises ValueError for another kind of bit generator.
    """
    packed = np.empty((len(generators), COLUMNS), dtype=np.uint64)
    for row, generator in zip(packed, generators, strict=True):
        row[:] = _pack(generator.bit_generator.state)
    return packed


def put_back(generators: Sequence[np.random.Generator], packed: NDArray[np.uint64]) -> None:
    """Let E generators go on exactly where the packed ones [E, 6] stood."""
    for generator, row in zip(generators, packed.tolist(), strict=True):
        generator.bit_generator.state = _unpack(row)


def _pack(state: Any) -> list[int]:
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"only PCG64 generators can be saved, not {state['bit_generator']}")
    words: list[int] = []
    for number in (state["state"]["state"], state["state"]["inc"]):
        words += [number >> 64, number & _LOW_WORD]
    return [*words, state["has_uint32"], state["uinteger"]]


def _unpack(row: list[int]) -> Any:
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = row
    return {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
