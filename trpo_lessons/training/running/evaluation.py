"""How good a policy is: whole episodes, with everything frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from trpo_lessons import envs
from trpo_lessons.envs.atari import WorkerError
from trpo_lessons.envs.finding import one_line
from trpo_lessons.envs.foreign import EnvironmentFault
from trpo_lessons.training.running.acting import choose_actions
from trpo_lessons.training.running.run import Run
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.stopping import check, postponed_interrupts
from trpo_lessons.training.sampling.threads import torch_threads

PURPOSE = "evaluation"  # seeds that training does not have; games have some thirty starts, so these are the same
ENDLESS = 50_000  # steps; more than an episode of the tasks that come with this package can have


@dataclass(frozen=True)
class Evaluation:
    """Returns (undiscounted, raw rewards) and lengths (steps) of whole episodes.

    deterministic  whether actions were the most likely ones; otherwise they were sampled
    cut            how many episodes went on when the time limit of `evaluate` cut them
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    deterministic: bool = True
    cut: int = 0

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return; nan for a single episode."""
        return float(np.std(self.returns, ddof=1) / len(self.returns) ** 0.5) if len(self.returns) > 1 else float("nan")


@postponed_interrupts()
def evaluate(
    run: Run, episodes: int = 20, seed: int = 0, *, deterministic: bool | None = None, time_limit: int | None = None
) -> Evaluation:
    """Play `episodes` whole episodes side by side: the most likely action in every state, or sampled ones.

    deterministic: None samples in games and takes the most likely action elsewhere. Nothing in a game is random: a
        player who always does the same can go round in circles until the time limit, half an hour of play.

    Each environment plays one episode, so that short episodes are not counted more often than long ones.

    time_limit: cut episodes after so many steps; they count as far as they went. Without it the environment decides.

    Raises ValueError when `episodes` or `time_limit` is less than 1, and RunError (one line) when the environment
    fails, or when no `time_limit` is given and an episode has not ended after 50,000 steps: a Gymnasium environment
    need not have an end.
    """
    for name, count in (("episodes", episodes), ("time_limit", time_limit)):
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if deterministic is None:
        deterministic = run.config.task not in envs.GAMES
    with _told_in_one_line():
        env = envs.make(run.config.task, episodes, threads=run.config.threads, **run.config.task_settings)
        # A few observations are too little work to share, and threads that wait for each other take the games' time.
        with closing(env), torch_threads(1):
            generator = action_generator(seed)
            obs = envs.begin_episodes(env, envs.derived_seeds(seed, PURPOSE, episodes))
            returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=int)
            playing = np.ones(episodes, dtype=bool)
            while playing.any() and lengths.max() < (time_limit or ENDLESS):
                check()
                actions = choose_actions(run, obs, env.single_action_space, None if deterministic else generator)
                obs, rewards, terminated, truncated, _ = env.step(actions)
                returns += np.where(playing, rewards, 0.0)
                lengths += playing
                playing &= ~(terminated | truncated)
    if playing.any() and time_limit is None:
        told = f"{playing.sum()} of {episodes} episodes of {run.config.task} have not ended after {ENDLESS} steps"
        raise RunError(f"{told}; cut them, or wait for longer, by --time-limit STEPS")
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()), deterministic, int(playing.sum()))


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """What an environment raises that cannot be made in several copies, or fails while it is played, is a RunError."""
    try:
        yield
    except (WorkerError, EnvironmentFault, ValueError) as error:
        raise RunError(one_line(error)) from error
    except MemoryError as error:
        raise RunError("so many episodes side by side need more memory than there is; ask for fewer") from error


def action_generator(seed: int) -> torch.Generator:
    """The random numbers of sampled actions."""
    return torch.Generator().manual_seed(*envs.derived_seeds(seed, f"actions in {PURPOSE}", 1))
