"""Small vines of games that tests share; run as a program, it follows saved branches in a new process."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lessons import envs, training
from trpo_lessons.distributions import Distribution
from trpo_lessons.envs import State
from trpo_lessons.envs.atari import AtariVectorEnv, make_atari
from trpo_lessons.envs.rollouts import rows_of
from trpo_lessons.policies import FactoredHead, Policy, layers_for
from trpo_lessons.single_path import Actor
from trpo_lessons.training.sampling.game_sampler import GameGroups
from trpo_lessons.training.sampling.game_vine_sampler import GameVineSampler, LearnersGames
from trpo_lessons.training.settings.obs_statistics import FrameMoments
from trpo_lessons.vine import Vine, roll_out

NOTHING_SEEN = FrameMoments.empty((52, 40))
GAMMA = 0.9


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(game: str = "breakout", rows: int = 10, **settings: Any) -> training.TrainConfig:
    """A vine of a few games with a few branches; `rows` is the trunk's length."""
    usual = {"num_envs": 3, "hidden": (5,), "value_hidden": (5,), "chunk_size": 16, "threads": 1, "gamma": GAMMA}
    vine = {"vine_states": 5, "vine_branches": 3, "rollout_length": 4, "first_actions": "uniform"}
    settings = {**usual, **vine, **settings}
    branch_steps = settings["vine_states"] * settings["vine_branches"] * settings["rollout_length"]
    steps = rows * settings["num_envs"] + branch_steps
    return training.preset(game, "smoke", sampling="vine", steps_per_iteration=steps, **settings)


def policy_and_theta(seed: int = 1) -> tuple[Policy, Tensor]:
    """A small policy over the joystick that does not find all actions equally good."""
    policy = Policy(layers_for((4, 52, 40), (5,), 8), FactoredHead((3, 3, 2)))
    theta = policy.initial_theta(seeded(seed))
    return policy, theta + 0.1 * torch.randn(theta.shape, generator=seeded(seed))


def actor(seed: int = 1) -> Actor:
    return Actor(*policy_and_theta(seed), NOTHING_SEEN)


@cache
def before_a_loss() -> State:
    """Breakout, one copy: in the second step from here the ball is lost, whatever the player does."""
    with closing(make_atari("breakout", 1, seed=0, threads=1)) as env:
        env.reset()
        recent = []
        while True:
            recent.append(env.save_state())
            if env.step(np.array([[0, 1, 1]]))[4]["life_lost"]:
                return recent[-2]


def put_into(sampler: GameGroups, state: State, limit: int) -> None:
    """All games of the trunk go on from `state`, one row, and are cut after `limit` more steps."""
    for env in [*sampler.envs, *getattr(sampler, "_branches", [])]:
        env.max_episode_steps = int(state["elapsed_steps"][0]) + limit
    for group in sampler._groups:
        env = envs.restorable(group.env)
        rows = rows_of(state, np.zeros(env.num_envs, dtype=np.int64))
        group.raw_obs = torch.from_numpy(env.restore_state(rows))


def grow(sampler: GameVineSampler, limit: int = 6, value: Any = None) -> Vine:
    """A vine from shortly before a ball is lost; six steps later the games are cut, and new ones begin."""
    put_into(sampler, before_a_loss(), limit)
    return sampler.sample(actor(), value)


def naive_branch(
    env: AtariVectorEnv, pi_old: Actor, start: State, first: Tensor, noise: Tensor, life_loss_ends: bool
) -> tuple[float, int, bool, Tensor]:
    """One branch, alone in one game: its return, length, whether it is over, and the last observation."""
    obs, total = env.restore_state(start), 0.0
    for t in range(len(noise)):
        action = first[None] if t == 0 else pi_old(obs).sample_from(noise[t][None])
        obs, scores, terminated, truncated, infos = env.step(action.numpy())
        total += GAMMA**t * float(np.sign(scores[0]))
        over = bool(terminated[0] or (life_loss_ends and infos["life_lost"][0]))
        if terminated[0] or truncated[0]:
            obs = infos["final_obs"]
        if over or truncated[0]:
            break
    return total, t + 1, over, torch.from_numpy(obs[0])


def twice_the_same(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two equal first actions, left without the button, and another one, to the right."""
    actions = torch.tensor([[0, 1, 0], [0, 1, 0], [2, 1, 0]]).expand(len(pi_old), 3, 3)
    return actions, torch.zeros(len(pi_old), 3)


# ---- K branches of one state, here and in a new process

BRANCHES, LENGTH = 3, 40


def follow(env: AtariVectorEnv, start: State, sticky: float) -> dict[str, np.ndarray]:
    """What three branches of one state find that differ by their first action alone."""
    env.settings = replace(env.settings, sticky_actions=sticky)
    first, _ = twice_the_same(actor()(env.restore_state(rows_of(start, np.zeros(BRANCHES, dtype=np.int64)))), seeded())
    noise = torch.rand(LENGTH, 1, 3, generator=seeded(5)).expand(-1, BRANCHES, -1)
    found = roll_out(LearnersGames(env, env.step, True), actor(), start, first[0], noise, GAMMA)
    told = {name: getattr(found, name).numpy() for name in ("returns", "lengths", "terminated", "last_obs")}
    return told | {f"end.{name}": array for name, array in env.save_state().items()}


def main(folder: Path) -> None:
    for path in sorted(folder.glob("*.start.npz")):
        game, sticky = path.name.split(".")[0].rsplit("-", 1)
        with closing(make_atari(game, BRANCHES, threads=1)) as env:
            np.savez(folder / f"{game}-{sticky}.found.npz", **follow(env, dict(np.load(path)), int(sticky) / 100))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
