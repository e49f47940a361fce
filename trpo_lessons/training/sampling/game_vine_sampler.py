"""Vine sampling of games: trunks in groups, as a single path has them, and all their branches in the same groups.

The branches of a group step together in a process of their own, all of them asking the policy at once. While one group
acts, the games of the others are played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.distributions import concatenated
from trpo_lessons.envs import RestorableVectorEnv, Rows, State
from trpo_lessons.envs.base import Bools, Floats
from trpo_lessons.envs.rollouts import Rollouts, SavesChosen, not_run
from trpo_lessons.rollout_set import surrogate_for
from trpo_lessons.single_path import Actor
from trpo_lessons.surrogate import chunks
from trpo_lessons.training.sampling.game_path import GamePath, GameRolloutSet, as_learned
from trpo_lessons.training.sampling.game_sampler import GameGroups
from trpo_lessons.training.sampling.groups import Group, Value
from trpo_lessons.training.sampling.threads import torch_threads
from trpo_lessons.training.sampling.vine_sampler import first_actions_for, width_for
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.vine import Branching, Vine, branch_noise, choose_states, roll_out, worth

# Branches side by side in one process: enough for acting to be cheap. A cartridge takes a tenth of a second to insert.
WIDTH = 16


class GameVineSampler(GameGroups):
    """Trunks of `config.rows` steps in every game, each from where the one before has ended, and their branches.

    Every step of the trunks is equally likely to be chosen, and each group follows the branches of its share of the
    chosen states, whosever trunk they are on. What the games of the branches hold does not matter to the next batch,
    and is not part of `state`.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self._branching = Branching(
            num_states=config.vine_states,
            first_actions=first_actions_for(
                self.envs[0].single_action_space, config.vine_branches, config.first_actions
            ),
            rollout_length=config.rollout_length,
            gamma=config.gamma,
        )
        shares = np.array_split(np.arange(config.vine_states), min(len(self._groups), config.vine_states))
        self._shares = [slice(share[0], share[-1] + 1) for share in shares]
        widths = [width_for(len(share) * config.vine_branches, WIDTH) for share in shares]
        made = [envs.make(config.task, width, threads=1, **config.task_settings) for width in widths]
        self._branches = [envs.restorable(env) for env in made]

    def sample(self, pi_old: Actor, value: Value | None = None) -> Vine:
        """The next trunk and its branches; `value` is asked for the rest where a branch is cut."""
        config, generator, branching = self._config, self._groups[0].generator, self._branching
        chosen = choose_states(config.rows, config.num_envs, config.vine_states, generator)
        trunk, saved = self._trunk(pi_old, chosen)
        states = trunk.states_at(chosen)
        with torch.no_grad(), torch_threads(config.threads):
            there = concatenated([pi_old.answer(part.obs) for part in chunks(states, config.chunk_size)])
            actions, log_q = branching.first_actions(there, generator)
            noise = branch_noise(there, branching.rollout_length, config.vine_branches, 1, generator)
            if trunk.flaw:
                rollouts = not_run(log_q.numel(), trunk.next_obs.shape[1:])
            else:
                rollouts = self.roll_out(pi_old, saved, actions.flatten(0, 1), noise)
            branching = replace(branching, value=in_chunks(value, config.chunk_size) if value else None)
            q_values = worth(rollouts, pi_old, branching).view_as(log_q)
        return Vine(
            trunk=trunk,
            chosen=chosen,
            saved=saved,
            rollout_set=GameRolloutSet(states.frames, actions, q_values, log_q),  # type: ignore[arg-type]
            surrogate=surrogate_for(branching.first_actions),
            lengths=rollouts.lengths.view_as(log_q),
            branch_steps=rollouts.num_steps,
            seconds={phase: spent + rollouts.seconds[phase] for phase, spent in trunk.seconds.items()},
        )

    def _trunk(self, pi_old: Actor, chosen: Tensor) -> tuple[GamePath, State]:
        """The trunks of all groups, and the states before the steps `chosen` [N, 2], in this order."""
        firsts = np.cumsum([0, *self._sizes])
        owners = np.searchsorted(firsts, chosen[:, 1].numpy(), side="right") - 1
        places = [np.flatnonzero(owners == g) for g in range(len(self._groups))]
        saving = {
            id(group): SavesChosen(envs.restorable(group.env), chosen[place] - torch.tensor([0, first]))
            for group, place, first in zip(self._groups, places, firsts.tolist(), strict=False)
        }
        trunk = self.follow(pi_old, lambda group: saving[id(group)])
        states = [each.saved() for each in saving.values()]
        order = np.argsort(np.concatenate(places))
        return trunk, {name: np.concatenate([state[name] for state in states])[order] for name in states[0]}

    def roll_out(self, pi_old: Actor, saved: State, first_actions: Tensor, noise: Tensor) -> Rollouts:
        """K rollouts from each of N states, given first actions [N * K, ...] and noise [L, N * K, noise_dim]."""
        config, branches = self._config, self._config.vine_branches
        work = {
            id(group): (env, share)
            for group, env, share in zip(self._groups, self._branches, self._shares, strict=False)
        }

        def play(group: Group) -> Rollouts | None:
            if id(group) not in work:
                return None  # there are fewer states than groups
            env, share = work[id(group)]
            games = LearnersGames(env, self.taking_turns(env).step, config.life_loss_ends)
            starts = {name: array[share] for name, array in saved.items()}
            rows = slice(share.start * branches, share.stop * branches)
            return roll_out(games, pi_old, starts, first_actions[rows], noise[:, rows], config.gamma)

        return joined([part for part in self.in_threads(play) if part])

    def close(self) -> None:
        """Close the environments, those of the branches too."""
        super().close()
        for env in self._branches:
            env.close()


class LearnersGames:
    """Games that can be restored, with the rewards and ends that a learner is told of; see `as_learned`."""

    def __init__(self, env: RestorableVectorEnv, step: Callable[[NDArray[Any]], Any], life_loss_ends: bool) -> None:
        """step: what steps `env`, such as its own method."""
        self.num_envs, self.single_action_space = env.num_envs, env.single_action_space
        self._env, self._step, self._life_loss_ends = env, step, life_loss_ends

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools, Bools, dict[str, Any]]:
        """As `GamesVectorEnv.step`, but with rewards -1, 0 or 1 and, where asked for, lost lives that terminate."""
        obs, scores, terminated, truncated, infos = self._step(actions)
        rewards, terminated = as_learned(scores, terminated, infos, self._life_loss_ends)
        return obs, rewards, terminated, truncated, infos

    def restore_state(self, state: State, rows: Rows | None = None) -> NDArray[Any]:
        """As `RestorableVectorEnv.restore_state`."""
        return self._env.restore_state(state, rows)

    def rest(self, rows: Rows) -> None:
        """As `EpisodicVectorEnv.rest`."""
        self._env.rest(rows)


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """The rollouts of several groups as those of one; seconds are means."""
    columns = ("returns", "lengths", "terminated", "last_obs")
    return Rollouts(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns},
        num_steps=sum(part.num_steps for part in parts),
        seconds={phase: sum(part.seconds[phase] for part in parts) / len(parts) for phase in parts[0].seconds},
    )


def in_chunks(value: Value, chunk_size: int | None) -> Value:
    """V of so many observations at a time."""
    return lambda obs: torch.cat([value(part) for part in torch.split(obs, chunk_size or max(len(obs), 1))])
