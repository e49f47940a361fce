"""Start a run, go on with one, and load what it has learned."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from trpo_lessons import envs, zoo_names
from trpo_lessons.envs.adapter import MakeOne
from trpo_lessons.envs.atari import WorkerError
from trpo_lessons.envs.foreign import EnvironmentFault
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.spaces import scaling_in_words
from trpo_lessons.policies import Policy
from trpo_lessons.training.running import device as devices
from trpo_lessons.training.running.acting import Spaces, act
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.population_loop import PopulationTrainer
from trpo_lessons.training.running.reporting import Reporter
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.run_folder import RunFolder, environment_facts, trust_option
from trpo_lessons.training.running.stopping import Deadline, check, postponed_interrupts
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.settings.methods import POPULATION_METHODS
from trpo_lessons.training.settings.obs_statistics import restored, statistics_for
from trpo_lessons.training.settings.policy_for import policy_for

RUNS = Path("runs")  # where runs go that are given no place
LEVEL_OF_THE_CALLER = 4  # of `train` or `resume`, for warnings: past the decorator that postpones interrupts
OTHER_BITS = "the result will not be the same to the bit"  # what is said after each of `differences`
Callback = Callable[[Mapping[str, Any]], object]
"""Called after every iteration with its row: the columns of progress.csv, numbers as numbers. By then the iteration is
logged and its checkpoint saved. A callback that returns True ends the run as Ctrl-C does; what it raises ends the run
too, and passes through: `resume` goes on from the last iteration that it was called for."""


@dataclass(frozen=True)
class Run:
    """A trained policy with what it needs to act: `run.act(obs)`.

    policy, theta, statistics  `policy(theta, statistics.normalise(obs))` is the distribution over actions
    spaces                     of the environment, and as the policy has them
    iteration                  how many iterations it was trained for

    `interrupted` tells that training was stopped before its last iteration, by Ctrl-C, SIGTERM or the clock; `resume`
    goes on from there.
    """

    folder: Path
    config: TrainConfig
    policy: Policy
    theta: Tensor
    statistics: RunningMoments
    spaces: Spaces
    iteration: int
    interrupted: bool = False

    def act(self, obs: Any, generator: torch.Generator | None = None) -> Any:
        """The action for an observation: the most likely one, or with a generator a sampled one.

        obs: one observation of the task's environment as it returns it, or N of them along a first axis. For gym: tasks
            these are the environment's own, neither flattened nor normalised; for games, stacks of frames in bytes.

        Returns the action as that environment takes it, within its bounds (numpy; a NumPy integer where there is one
        choice), or N of them along a first axis. Raises ValueError for observations of another shape, for nan and what
        is no number, for frames of games that are not in bytes, and for samples of a policy that cem or cma searched
        for: those have no noise.

        Games should be played with a generator: nothing in them is random, and a player who always does the same can go
        round in circles.
        """
        return act(self, obs, generator)


@postponed_interrupts()
def train(
    config: TrainConfig,
    out: Path | str | None = None,
    *,
    env: MakeOne | None = None,
    progress: bool = False,
    stop_after: float | None = None,
    callback: Callback | None = None,
) -> Run:
    """Train by `config` into the new run folder `out`; `progress` shows a progress bar on standard error.

    out: None takes runs/TASK-seedN (of another method than TRPO runs/TASK-METHOD-seedN), or where that exists the first
        of runs/TASK-seedN-2, -3, ... that does not.

    env: for a task named own:NAME, what makes its environments: one new one at every call. It is not stored: `resume`
        and `load_run` need it again.

    stop_after: seconds after which the run ends as by Ctrl-C, unless it is complete.
    callback: called with the row of every iteration; see `Callback`.

    Raises RunError (one line) when the folder cannot be used or the environment fails, SettingError when it cannot be
    made. Warns (RuntimeWarning) when no update was accepted, unless the progress bar has told it.
    """
    _check_wishes(callback, stop_after)
    config = _with(env, config)
    _prepare_device(config)
    trainer = _trainer(config)  # first, because it can fail, and takes seconds
    path = RUNS / _usual_name(config) if out is None else Path(out)
    with RunFolder.taken(path.expanduser(), config, numbered=out is None) as folder:
        if progress and sys.stderr and (told := scaling_in_words(trainer.sampler.envs[0].single_action_space)):
            tqdm.write(f"{config.task}: {told}", file=sys.stderr)
        return _run_to_the_end(trainer, folder, progress, stop_after, callback)


@postponed_interrupts()
def resume(
    path: Path | str,
    out: Path | str | None = None,
    *,
    env: MakeOne | None = None,
    trust_module: str | None = None,
    iterations: int | None = None,
    step_budget: int | None = None,
    device: str | None = None,
    progress: bool = False,
    stop_after: float | None = None,
    callback: Callback | None = None,
) -> tuple[Run, list[str]]:
    """Go on with a run as if it had never stopped, optionally for longer or on another device.

    path: a run folder, or a policy of the zoo, which needs `out`; see `load_run`.
    out: a new folder, for a copy of the run that goes on; the run itself stays as it is.
    env: what makes the environments of a run that was trained with env=...
    trust_module: the module that may be run for a task gym:MODULE:ENV_ID; see `load_run`.
    iterations, step_budget: how many iterations, or simulator steps, the run may have altogether; None leaves it as it
        is.

    Returns the run and its `differences`: with none of them, the result equals that of an uninterrupted run to the bit.
    Raises RunError (one line) when there is nothing usable to go on from.
    """
    _check_wishes(callback, stop_after)
    folder = RunFolder(folder_of(path))
    if folder.is_recorded and out is None:
        raise RunError(f"{path} is a recorded run, and stays as it is; go on in a copy: --out FOLDER")
    config, started_in = folder.config(trust_module)
    config = _with(env, config)
    changes = differences(folder.path, device, trust_module=trust_module)
    wishes: dict[str, Any] = {"iterations": iterations, "step_budget": step_budget, "device": device}
    given = dataclasses.replace(config, **{name: wish for name, wish in wishes.items() if wish is not None})
    changed, config = given != config, given
    _prepare_device(config)
    if out is not None:
        _refuse_idle_copy(folder, config, path)
        folder = folder.copied(Path(out))
    with folder.locked():
        trainer = _trainer(config)
        if folder.has_checkpoint:
            _restore(trainer, folder)
        if config.iterations < trainer.iteration:
            raise RunError(f"{path} has done {trainer.iteration} iterations already; ask for more than that")
        more = step_budget is not None or (iterations is not None and trainer.iteration < iterations)
        _refuse_without_budget(trainer, path, more)
        if changes:
            started_in.setdefault("changes", []).append(f"from iteration {trainer.iteration + 1}: {'; '.join(changes)}")
        if changes or changed:
            folder.write_config(config, started_in)
        folder.drop_rows_after(trainer.iteration)
        if progress and sys.stderr:
            for change in changes:
                tqdm.write(f"trpo-lessons: {change}; {OTHER_BITS}", file=sys.stderr)
        return _run_to_the_end(trainer, folder, progress, stop_after, callback), changes


def _refuse_idle_copy(folder: RunFolder, wanted: TrainConfig, path: Path | str) -> None:
    """Raises RunError where a copy would have nothing to do."""
    done, steps = folder.progress()
    if wanted.is_complete(done, steps):
        budget = wanted.step_budget is not None and steps >= wanted.step_budget
        told = f"has taken its step_budget of {wanted.step_budget} steps" if budget else f"has done {done} iterations"
        more = "--step-budget" if budget else "--iterations"
        raise RunError(f"{path} {told}; to go on, ask for more altogether ({more} N)")


def _refuse_without_budget(trainer: AnyTrainer, path: Path | str, more: bool) -> None:
    """Raises RunError where more is asked for, and the budget of steps allows no further iteration."""
    budget = trainer.config.step_budget
    if more and budget is not None and trainer.total_steps >= budget:
        raise RunError(
            f"{path} has taken {trainer.total_steps} of the {budget} steps of its step_budget; to go on, ask for more "
            "altogether (--step-budget N)"
        )


def differences(path: Path | str, device: str | None = None, *, trust_module: str | None = None) -> list[str]:
    """Why a resumed run will not equal an uninterrupted one to the bit, one line each; usually there is no reason.

    path: a run folder, or a policy of the zoo.
    device: on which it is resumed, if not on its own.
    trust_module: as `load_run` has it.

    Raises RunError (one line) when `path` is no run folder.
    """
    config, started_in = RunFolder(folder_of(path)).config(trust_module)
    now = environment_facts(config.threads, device or config.device)
    then = {**now, "device": config.device, **started_in}  # what runs of earlier versions do not tell is taken as equal
    reasons = [f"{key} was {then[key]}, is {now[key]}" for key in now if then[key] != now[key]]
    if config.task not in envs.TASKS:
        reasons.append(f"{config.task} cannot restore its state and begins new episodes")
    return reasons


def load_run(path: Path | str, *, env: MakeOne | None = None, trust_module: str | None = None) -> Run:
    """The policy of a run's last checkpoint, to be evaluated or watched. Raises RunError (one line).

    path: a run folder; or, in a string, the name of a policy that comes with this package, such as hopper or
        hopper/vine/2 (`trpo-lessons zoo` lists them). What lies in the current folder under that name comes first.
    env: what makes the environments of a run that was trained with env=...
    trust_module: the module that may be run for a task gym:MODULE:ENV_ID. A folder is data, and can come from anybody:
        what it names runs only if you name it too, or if your program has imported it already.
    """
    folder = RunFolder(folder_of(path))
    config, _ = folder.config(trust_module)
    config = _with(env, config)
    tensors, facts = folder.load_checkpoint()
    try:
        made = envs.make(config.task, 1, threads=1, **config.task_settings)
    except (ValueError, EnvironmentFault) as error:  # such as an environment whose simulator is not installed here
        raise RunError(f"{path}: {error}") from error
    with closing(made):
        policy, statistics = policy_for(made, config), statistics_for(made.single_observation_space)
        spaces = Spaces.of(made)
    with _checkpoint_must_fit(folder, config):
        theta, statistics = _theta_of(policy, tensors), restored(statistics, tensors, facts)
        return Run(folder.path, config, policy, theta, statistics, spaces, facts["iteration"])


def folder_of(run: Path | str) -> Path:
    """Where a run lies: a path as it is, and a string that names nothing here as a name of the zoo.

    Raises RunError (one line) for what must be a slip in such a name, and for a folder without a run that hides one.
    """
    path = Path(run).expanduser()
    is_there = bool(str(run)) and path.exists()
    if isinstance(run, Path) or (is_there and RunFolder(path).has_begun):
        return path
    entry = zoo_names.find(run)
    if is_there and entry:
        raise RunError(f"{run} is no run folder (no config.json), and hides the zoo's policy of that name: rename it")
    if entry:
        return entry.folder
    if not run or (not is_there and zoo_names.seems_meant(run)):
        raise RunError(zoo_names.unknown(run))
    return path


def _run_to_the_end(
    trainer: AnyTrainer, folder: RunFolder, progress: bool, stop_after: float | None, callback: Callback | None
) -> Run:
    config, interrupted, deadline = trainer.config, False, Deadline(stop_after)
    begun = trainer.iteration, trainer.total_steps
    completed = *begun, trainer.theta, trainer.statistics
    refusals: list[str] = []
    try:
        with closing(trainer), Reporter(folder.path, config, *begun, progress) as reporter:
            while not config.is_complete(trainer.iteration, trainer.total_steps):
                check()
                row = trainer.iterate()
                folder.append_row(row)
                reporter.report(row)
                tensors, facts = trainer.state()
                folder.save_checkpoint(tensors, {**facts, "columns": list(row)})
                completed = trainer.iteration, trainer.total_steps, trainer.theta, trainer.statistics
                refusals += [] if row["accepted"] else [row["reason"]]
                enough = callback is not None and _is_true(callback(row))
                if config.is_complete(trainer.iteration, trainer.total_steps):
                    break
                if enough or not deadline.allows_another():
                    interrupted = True
                    break
            check()  # what was wanted while the last one was written
    except (WorkerError, EnvironmentFault) as error:
        raise RunError(f"{error}; go on with: {_command_to_resume(folder.path, config)}") from error
    except KeyboardInterrupt:
        # The iteration in progress is lost, and repeated to the same bits by `resume`.
        interrupted = True
    iteration, steps, theta, statistics = completed
    interrupted = interrupted and not config.is_complete(iteration, steps)  # it may have come after the last one
    if refusals and len(refusals) == iteration - begun[0] and not progress:
        told = f"{folder.path}: no update was accepted, nothing was learned; the last one was refused: {refusals[-1]}"
        warnings.warn(told, RuntimeWarning, stacklevel=LEVEL_OF_THE_CALLER)
    spaces = Spaces.of(trainer.sampler.envs[0])
    return Run(folder.path, config, trainer.policy, theta.cpu(), statistics, spaces, iteration, interrupted)


def _usual_name(config: TrainConfig) -> str:
    method = "" if config.method == "trpo" else f"-{config.method}"
    return re.sub(r"[^\w.-]+", "-", f"{config.task}{method}-seed{config.seed}")


def _is_true(answer: object) -> bool:
    return isinstance(answer, bool | np.bool_) and bool(answer)  # NumPy's comparisons give the latter


def _check_wishes(callback: Any, stop_after: Any) -> None:
    if callback is not None and not callable(callback):
        raise SettingError(f"callback must be a function of a row, or none, got {callback!r}")
    is_number = isinstance(stop_after, SupportsFloat) and not isinstance(stop_after, bool | np.bool_ | str)
    if stop_after is not None and not (is_number and float(stop_after) > 0):
        raise SettingError(f"stop_after must be a number of seconds above 0, or none, got {stop_after!r}")


def _prepare_device(config: TrainConfig) -> None:
    try:
        devices.prepare(config.device)
    except ValueError as error:
        raise RunError(str(error)) from error


AnyTrainer = Trainer | PopulationTrainer


def trainer_for(config: TrainConfig) -> AnyTrainer:
    """The loop that the run's method needs. Raises ValueError where the environment or its policy does not suit it."""
    return PopulationTrainer(config) if config.method in POPULATION_METHODS else Trainer(config)


def _trainer(config: TrainConfig) -> AnyTrainer:
    try:
        return trainer_for(config)
    except (ValueError, EnvironmentFault) as error:  # an environment that cannot be made, or has spaces of no policy
        raise SettingError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch has no type for this one
            raise
        raise SettingError("these settings need more memory than there is") from error


def _with(env: MakeOne | None, config: TrainConfig) -> TrainConfig:
    return config if env is None else dataclasses.replace(config, env=env)


def _command_to_resume(path: Path, config: TrainConfig) -> str:
    if config.env:
        return f"training.resume({str(path)!r}, env=...)"
    return " ".join(filter(None, ["trpo-lessons resume", shlex.quote(str(path)), trust_option(config.task)]))


def _restore(trainer: AnyTrainer, folder: RunFolder) -> None:
    tensors, facts = folder.load_checkpoint()
    with _checkpoint_must_fit(folder, trainer.config):
        _theta_of(trainer.policy, tensors)
        trainer.load_state(tensors, facts)
    folder.rows_of(trainer.iteration, facts.get("columns"))  # before anything is written


def _theta_of(policy: Policy, tensors: Mapping[str, Tensor]) -> Tensor:
    theta = tensors["theta"]
    if theta.shape != (policy.num_parameters,):
        raise ValueError(f"theta has shape {list(theta.shape)}, the policy needs {policy.num_parameters} numbers")
    return theta


@contextmanager
def _checkpoint_must_fit(folder: RunFolder, config: TrainConfig) -> Iterator[None]:
    other = " and what env makes" if config.env else ""
    told = f"the checkpoint in {folder.path} does not fit its config.json{other}"
    try:
        yield
    except KeyError as error:
        raise RunError(f"{told} (it has no {error})") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise RunError(f"{told} ({error})") from error
