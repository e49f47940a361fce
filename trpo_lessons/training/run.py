"""Start a run, go on with one, and load what it has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.loop import Trainer, statistics_from
from trpo_lessons.training.policy_for import policy_for
from trpo_lessons.training.reporting import Reporter
from trpo_lessons.training.run_folder import RunError, RunFolder, environment_facts


@dataclass(frozen=True)
class Run:
    """A trained policy with what it needs to act.

    `interrupted` tells that training was stopped by Ctrl-C before its last iteration; `resume` goes on from there.
    """

    folder: Path
    config: TrainConfig
    policy: Policy
    theta: Tensor
    statistics: RunningMoments
    iteration: int
    interrupted: bool = False


def train(config: TrainConfig, out: Path | str, *, progress: bool = False) -> Run:
    """Train by `config` into the new run folder `out`; `progress` shows a progress bar on standard error.

    Raises RunError (one line) when the folder cannot be used.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: no usable GPU found on this machine; use --device cpu or auto")
    trainer = Trainer(config)
    folder = RunFolder.create(Path(out), config)
    return _run_to_the_end(trainer, folder, progress)


def resume(path: Path | str, *, iterations: int | None = None, progress: bool = False) -> tuple[Run, list[str]]:
    """Go on with a run as if it had never stopped, optionally to another number of iterations.

    Returns the run and the differences between this machine and the one it was started on: with none of them, the
    result equals that of an uninterrupted run to the bit. Raises RunError (one line) when there is nothing usable to go
    on from.
    """
    folder = RunFolder(Path(path))
    config, started_in = folder.config()
    if iterations is not None:
        config = dataclasses.replace(config, iterations=iterations)
    tensors, facts = folder.load_checkpoint()
    trainer = Trainer(config)
    try:
        trainer.load_state(tensors, facts)
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(f"the checkpoint in {path} does not fit its config.json ({error})") from error
    folder.drop_rows_after(trainer.iteration)
    return _run_to_the_end(trainer, folder, progress), _differences(started_in, environment_facts(config.threads))


def load_run(path: Path | str) -> Run:
    """The policy of a run's last checkpoint, to be evaluated or watched. Raises RunError (one line)."""
    folder = RunFolder(Path(path))
    config, _ = folder.config()
    tensors, facts = folder.load_checkpoint()
    env = envs.make(config.task, 1, threads=1)
    policy = policy_for(env, config)
    env.close()
    if "theta" not in tensors or tensors["theta"].shape != (policy.num_parameters,):
        raise RunError(f"the checkpoint in {path} does not fit its config.json (theta has another length)")
    return Run(folder.path, config, policy, tensors["theta"], statistics_from(tensors, facts), facts["iteration"])


def _run_to_the_end(trainer: Trainer, folder: RunFolder, progress: bool) -> Run:
    config, interrupted = trainer.config, False
    with Reporter(folder.path, config, trainer.iteration, progress) as reporter:
        try:
            while trainer.iteration < config.iterations:
                row = trainer.iterate()
                folder.append_row(row)
                folder.save_checkpoint(*trainer.state())
                reporter.report(row)
        except KeyboardInterrupt:
            # The iteration in progress is lost, and repeated to the same bits by `resume`.
            interrupted = True
    trainer.env.close()
    if interrupted:
        saved = load_run(folder.path)
        return dataclasses.replace(saved, interrupted=True)
    return Run(
        folder.path, config, trainer.policy, trainer.theta.cpu(), trainer.statistics, trainer.iteration, interrupted
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [f"{key} was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key]]
