"""The paper's seven Atari games, from the screen (section 8.2, appendix D).

In reading order:

    settings    the games, and what can be chosen: frame size, joystick, sticky actions, starts
    resize      a screen made smaller, by the mean over areas
    console     one game: frame skip, maximum over two frames, four stacked frames, save and restore
    workers     processes that each play some of the games, and the memory they share with this one
    games       E games side by side: what the two ways to play them have in common
    vector      the games played by those processes, as an environment that saves and restores its state
    native      the same games played by `ale_py`'s own threads: faster, but what it plays cannot be saved
    frames      frames stored once, stacked when they are used
    scores      what a random player and a person score

`make_atari("pong", 16, seed=0)` is the way in.
"""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trpo_lessons.envs.atari.native import NativeAtariVectorEnv
from trpo_lessons.envs.atari.settings import GAMES, AtariSettings, MissingRom
from trpo_lessons.envs.atari.vector import AtariVectorEnv
from trpo_lessons.envs.atari.workers import WorkerError
from trpo_lessons.envs.random_state import Seed

__all__ = [
    "GAMES",
    "AtariSettings",
    "AtariVectorEnv",
    "MissingRom",
    "NativeAtariVectorEnv",
    "WorkerError",
    "make_atari",
]


def make_atari(
    game: str, num_envs: int, *, seed: Seed = None, threads: int | None = None, native: bool = False, **settings: Any
) -> VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """`num_envs` games side by side, in `threads` processes (None: one for each processor), or threads if `native`.

    native: play in `ale_py`'s threads. The games are the same to the bit, but they cannot be saved and restored.
    settings: see `AtariSettings`.

    Raises MissingRom, or ValueError for a setting out of range.
    """
    chosen = AtariSettings(**settings)
    if native:
        return NativeAtariVectorEnv(game, num_envs, chosen, seed=seed, threads=threads)
    return AtariVectorEnv(game, num_envs, chosen, seed=seed, threads=threads)
