"""Environments that step many copies at once, and save and restore their states.

`make("hopper", 64, seed=0)` is the way in; `TASKS` lists the tasks, `gym:ENV_ID` is any Gymnasium environment,
`gym:MODULE:ENV_ID` one that a module registers, and `own:NAME` whatever a function of yours makes. See `base` for the
interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trpo_lessons.envs.adapter import OWN_PREFIX, BrokenPromise, MakeOne, open_gymnasium
from trpo_lessons.envs.barto_cartpole import BartoCartPole
from trpo_lessons.envs.base import RestorableVectorEnv, Rows, State
from trpo_lessons.envs.cartpole import CartPole
from trpo_lessons.envs.finding import PREFIX, find_spec
from trpo_lessons.envs.random_state import Seed, derived_seeds

__all__ = [
    "GAMES",
    "TASKS",
    "BrokenPromise",
    "RestorableVectorEnv",
    "Rows",
    "State",
    "Task",
    "UnknownTask",
    "begin_episodes",
    "check_task",
    "derived_seeds",
    "make",
    "restorable",
]


class UnknownTask(ValueError):  # noqa: N818 (it is named for what happened)
    """There is no task of that name; the message names the closest one and lists them all."""


@dataclass(frozen=True)
class Task:
    """A task by name: `build(num_envs, seed, threads, **settings)`, and the settings that it accepts.

    `frees_interpreter` says that a step is simulated outside Python, so that other Python threads run meanwhile.
    """

    summary: str
    build: Callable[..., VectorEnv[Any, Any, Any]]
    settings: tuple[str, ...] = ()
    frees_interpreter: bool = False


def _cartpole(num_envs: int, seed: Seed, _threads: int | None) -> RestorableVectorEnv:
    return CartPole(num_envs, seed=seed)


def _barto_cartpole(num_envs: int, seed: Seed, _threads: int | None) -> RestorableVectorEnv:
    return BartoCartPole(num_envs, seed=seed)


def _robot(name: str, num_envs: int, seed: Seed, threads: int | None, **settings: Any) -> RestorableVectorEnv:
    # Imported here: loading the simulator takes a moment that cart-pole should not wait for.
    from trpo_lessons.envs.mujoco import ROBOTS, MujocoVectorEnv

    return MujocoVectorEnv(ROBOTS[name], num_envs, seed=seed, threads=threads, **settings)


def _game(name: str, num_envs: int, seed: Seed, threads: int | None, **settings: Any) -> VectorEnv[Any, Any, Any]:
    from trpo_lessons.envs.atari import make_atari

    return make_atari(name, num_envs, seed=seed, threads=threads, **settings)


def _game_task(name: str, summary: str) -> Task:
    settings = ("height", "width", "actions", "sticky_actions", "no_op_max", "fire_reset", "native")
    return Task(summary, partial(_game, name), settings, frees_interpreter=True)


def _robot_task(name: str, summary: str, *settings: str) -> Task:
    return Task(summary, partial(_robot, name), settings=("control_cost", *settings), frees_interpreter=True)


GAMES: Mapping[str, Task] = MappingProxyType(
    {
        "beam_rider": _game_task("beam_rider", "Beam Rider: shoot saucers from above a grid of beams"),
        "breakout": _game_task("breakout", "Breakout: bounce a ball against a wall"),
        "enduro": _game_task("enduro", "Enduro: overtake cars, day and night"),
        "pong": _game_task("pong", "Pong: table tennis, from -21 to 21 points"),
        "qbert": _game_task("qbert", "Q*bert: hop over a pyramid and colour it"),
        "seaquest": _game_task("seaquest", "Seaquest: bring divers up before the air runs out"),
        "space_invaders": _game_task("space_invaders", "Space Invaders: shoot rows of invaders as they come down"),
    }
)

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "cartpole": Task("CartPole-v1: balance a pole by pushing its cart left or right", _cartpole),
        "barto-cartpole": Task("the paper's cart-pole: Barto et al. (1983), continuous force", _barto_cartpole),
        "swimmer": _robot_task("swimmer", "Swimmer-v5: three links that swim in a viscous fluid"),
        "hopper": _robot_task("hopper", "Hopper-v5: one leg that hops"),
        "walker": _robot_task("walker", "Walker2d-v5: two legs that walk", "impact_cost"),
        "halfcheetah": _robot_task("halfcheetah", "HalfCheetah-v5: two legs that run and cannot fall for good"),
        **GAMES,
    }
)


def make(
    task: str,
    num_envs: int,
    *,
    seed: Seed = None,
    threads: int | None = None,
    env: MakeOne | None = None,
    **settings: Any,
) -> VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """`num_envs` copies of a task.

    task: a key of `TASKS`; gym:ENV_ID for a Gymnasium environment with box or discrete spaces, gym:MODULE:ENV_ID for
        one that a module registers; or own:NAME for what `env` makes.
    seed: `make(..., seed=s).reset()` is `make(...).reset(seed=s)`: copy i is seeded with s + i. A sequence gives each
        its own seed, None takes entropy from the system.
    threads: of the simulator; None takes one for each processor. The numbers do not depend on it.
    env: for own: tasks alone, a class or function that makes one new Gymnasium environment at every call.
    settings: variants of the task, such as `control_cost=1e-5` for the paper's reward on the robots. gym: and own:
        tasks have one, `env_kwargs`: keyword arguments of the environment.

    Raises UnknownTask, or ValueError for a setting that the task does not have or a value out of range.
    """
    check_task(task)
    known = TASKS[task].settings if task in TASKS else ("env_kwargs",)
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(f"{task} has no setting {unknown[0]!r}; its settings: {', '.join(known) or 'none'}")
    if env is not None and not task.startswith(OWN_PREFIX):
        raise ValueError(f"env is for tasks named {OWN_PREFIX}NAME, not for {task}")
    if task in TASKS:
        return TASKS[task].build(num_envs, seed, threads, **settings)
    return open_gymnasium(task, num_envs, seed=seed, env=env, **settings)


def begin_episodes(env: VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> NDArray[Any]:
    """New episodes in all E copies, each with its own seed; returns their first observations [E, *obs_shape]."""
    obs, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]  # Gymnasium's annotation knows one seed only
    return np.asarray(obs)


def restorable(env: VectorEnv[Any, Any, Any]) -> RestorableVectorEnv:
    """The same environment, for those who need its state. Raises ValueError for one that cannot save it."""
    if isinstance(env, RestorableVectorEnv):
        return env
    name = getattr(env, "task", type(env).__name__)
    raise ValueError(
        f"{name} cannot save and restore its state, which is needed here; the tasks that can: {', '.join(TASKS)}"
    )


def check_task(task: str) -> None:
    """Raises UnknownTask unless `make` would know the task; nothing is built."""
    if task.startswith(PREFIX):
        try:
            find_spec(task.removeprefix(PREFIX))
        except ValueError as problem:
            raise UnknownTask(str(problem)) from problem
    elif task.startswith(OWN_PREFIX):
        if not task.removeprefix(OWN_PREFIX):
            raise UnknownTask(f"{task} has no name: give it one, as in {OWN_PREFIX}maze")
    elif task not in TASKS:
        raise UnknownTask(_unknown_task_message(task))


def _unknown_task_message(task: str) -> str:
    closest = difflib.get_close_matches(task.lower(), TASKS, n=1, cutoff=0.5)
    hint = f"; did you mean {closest[0]!r}?" if closest else ";"
    others = f"and {PREFIX}ENV_ID for Gymnasium's, {OWN_PREFIX}NAME for your own"
    return f"there is no task {task!r}{hint} tasks: {', '.join(TASKS)}, {others}"
