"""Carry out a sweep: what is complete is skipped, what was broken off goes on, and what fails does not stop the rest.

Whatever ends a sweep, Ctrl-C, SIGTERM, or SIGKILL of it or of what it has started, the same call goes on: all that it
knows is in the run folders. Two sweeps in one folder share the work, because a run folder has a lock.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from trpo_lessons.envs.finding import PREFIX, one_line
from trpo_lessons.training.running.reporting import LOG_INTERVAL
from trpo_lessons.training.running.run_errors import InUseError, RunError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.running.stopping import check, postponed_interrupts
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.sweeping import plan as plans
from trpo_lessons.training.sweeping.hands import Hands, dask_cluster, this_machine
from trpo_lessons.training.sweeping.own_process import GRACE, Job, Outcome, perform
from trpo_lessons.training.sweeping.plan import Planned
from trpo_lessons.training.sweeping.table import SweptRun, as_text, final_return

LOOK = 0.5  # seconds between two looks at what has ended
PATIENCE = 2.0  # seconds between two looks into folders that others write


@dataclass(frozen=True)
class Sweep:
    """What became of the runs of a sweep, in their order; `interrupted` tells that it was stopped before its end."""

    folder: Path
    runs: tuple[SweptRun, ...]
    interrupted: bool = False

    @property
    def failed(self) -> list[SweptRun]:
        """The runs that have failed, each with its `line`."""
        return [run for run in self.runs if run.state == "failed"]

    def table(self) -> str:
        """For each method, task and setting: seeds, the mean of their final returns, and which have failed."""
        return as_text(self.runs)


@postponed_interrupts()
def sweep(
    out: Path | str,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = ("trpo",),
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Sequence[Any]] | None = None,
    *,
    workers: int | None = None,
    on: str | None = None,
    only: tuple[int, int] | None = None,
    trust_modules: Sequence[str] = (),
    stop_after: float | None = None,
    progress: bool = False,
    **options: Any,
) -> Sweep:
    """Train every task by every method with every combination of settings and every seed, each in a folder in `out`.

    tasks: empty means all runs that `out` already has in its sweep.json.
    settings: values by the setting's name, as in {"delta": [0.003, 0.01], "natural-gradient:penalty": [1, 3]}; names
        with a task or method before them mean its runs alone.
    options: preset, device, iterations, steps_per_iteration, step_budget, sampling; the same for all runs. Runs have
        one thread unless settings say otherwise.

    workers: how many runs at a time on this machine; None takes one for each processor that is free to use.
    on: the address of a Dask scheduler, whose workers carry out the runs in place of this machine.
    only: (k, n) means share k of n, counting from 1. Shares are disjoint and together everything.
    stop_after: seconds after which the sweep is stopped, as by Ctrl-C.
    progress: show a progress bar on standard error.

    What a run fails with is in its `line`, and the others go on. Raises RunError, SettingError or UnknownTask (one
    line) when the sweep cannot begin.
    """
    out = Path(out).expanduser().absolute()
    deadline = time.monotonic() + (math.inf if stop_after is None else stop_after)
    _check(workers, on, only)
    if tasks:
        runs = plans.planned(tasks, methods, seeds, settings, **options)
        plans.record(out, runs)
    else:
        runs = plans.recorded(out, trust_modules)
    if only:
        runs = plans.share(runs, *only)
    work = _Work(out, runs)
    for run in work.to_do:
        work.settled_if_complete(run)
    try:
        if work.to_do:
            with _hands(work, workers, on) as hands, _Bar(work, progress) as bar:
                _work_off(work, hands, bar.show, deadline)
    except KeyboardInterrupt:
        return Sweep(out, work.results(), interrupted=True)
    return Sweep(out, work.results())


def _check(workers: int | None, on: str | None, only: tuple[int, int] | None) -> None:
    if workers is not None and workers < 1:
        raise SettingError(f"workers must be a whole number, at least 1, got {workers}")
    if workers is not None and on is not None:
        raise SettingError("workers are of this machine; a cluster's scheduler has its own")
    if only and not 1 <= only[0] <= only[1]:
        raise SettingError(f"there is no share {only[0]} of {only[1]}: shares are counted from 1")


def _hands(work: _Work, workers: int | None, on: str | None) -> AbstractContextManager[Hands]:
    if on is not None:
        return dask_cluster(on, work.out)
    threads = max((run.config.threads for run in work.runs if run.config), default=1)
    return this_machine(workers or max(1, _processors() // threads))


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


class _Work:
    """The runs of a sweep and what is known of them."""

    def __init__(self, out: Path, runs: Sequence[Planned]) -> None:
        self.out = out
        self.runs = runs
        self.outcomes = {run.name: Outcome("failed", run.flaw) for run in runs if run.config is None}
        self.done = {run.name: 0.0 for run in runs}  # between 0 and 1

    @property
    def to_do(self) -> list[Planned]:
        """Runs without an outcome."""
        return [run for run in self.runs if run.name not in self.outcomes]

    def folder(self, run: Planned) -> Path:
        """Where it is kept."""
        return self.out / run.name

    def job(self, run: Planned, config: TrainConfig) -> Job:
        """What its process has to know."""
        module = run.task.removeprefix(PREFIX).rpartition(":")[0] if run.task.startswith(PREFIX) else ""
        log = str(self.out / "logs" / f"{run.name}.log")
        return Job(run.name, str(self.folder(run)), config.to_json(), module or None, log)

    def look(self) -> None:
        """See how far the runs without an outcome are, whoever trains them."""
        for run in self.to_do:
            self._look_at(run)

    def settled_if_complete(self, run: Planned) -> bool:
        """Note that a run is complete, if it is."""
        complete = self._look_at(run)
        if complete:
            self.settle(run, self._of_complete(run))
        return complete

    def _look_at(self, run: Planned) -> bool:
        """Whether it is complete."""
        if run.config is None:
            return False
        try:
            iteration, steps = RunFolder(self.folder(run)).progress()
        except RunError:
            return False  # its process will tell
        done = max(iteration / run.config.iterations, steps / (run.config.step_budget or math.inf))
        self.done[run.name] = min(1.0, done)
        return run.config.is_complete(iteration, steps)

    def _of_complete(self, run: Planned) -> Outcome:
        try:
            plans.refuse_another(self.folder(run), run)
        except RunError as error:
            return Outcome("failed", str(error))
        return Outcome("complete")

    def is_free(self, run: Planned) -> bool:
        """Whether nobody trains it at this moment."""
        try:
            with RunFolder(self.folder(run)).locked():
                return True
        except InUseError:
            return False
        except RunError:
            return True

    def settle(self, run: Planned, outcome: Outcome) -> None:
        """Note what became of a run."""
        self.outcomes[run.name] = outcome
        self.done[run.name] = float(outcome.state != "stopped")

    def results(self) -> tuple[SweptRun, ...]:
        """All runs; those without an outcome are stopped."""
        return tuple(map(self._result, self.runs))

    def _result(self, run: Planned) -> SweptRun:
        outcome, folder = self.outcomes.get(run.name, Outcome("stopped")), self.folder(run)
        if outcome.state != "complete":
            return SweptRun(run, folder, outcome.state, outcome.line, remarks=outcome.remarks)
        try:
            return SweptRun(run, folder, outcome.state, "", final_return(folder), outcome.remarks)
        except RunError as error:
            return SweptRun(run, folder, "failed", str(error))


class _Bar:
    """A progress bar over all runs, on standard error; a run that is half done counts half."""

    def __init__(self, work: _Work, progress: bool) -> None:
        self._work = work
        self._told = set[str]()
        is_terminal = getattr(sys.stderr, "isatty", lambda: False)
        hidden = {} if progress and sys.stderr is not None else {"disable": True}
        self._bar = tqdm(
            total=len(work.runs),
            initial=self._done(),
            desc=work.out.name,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]",
            mininterval=0.1 if is_terminal() else LOG_INTERVAL,
            **hidden,
        )

    def _done(self) -> float:
        return math.fsum(self._work.done.values())

    def show(self) -> None:
        """Show how far the runs are, and a line for each that has failed since the last time."""
        states = {name: outcome.state for name, outcome in self._work.outcomes.items()}
        failed = [name for name, state in states.items() if state == "failed"]
        for name in failed:
            if name not in self._told and not self._bar.disable:
                tqdm.write(f"{name}: {self._work.outcomes[name].line}", file=sys.stderr)
        self._told.update(failed)
        words = f"{sum(state == 'complete' for state in states.values())} complete"
        words += f", {len(failed)} failed" * bool(failed)
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(self._done() - self._bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bar.close()


@dataclass
class _Flight:
    """Runs that are being carried out, and those that another process was found to be training."""

    flying: dict[Future[Outcome], Planned] = field(default_factory=dict)
    elsewhere: list[Planned] = field(default_factory=list)


def _work_off(work: _Work, hands: Hands, show: Callable[[], None], deadline: float) -> None:
    """Carry out everything that has no outcome. Raises KeyboardInterrupt when it was stopped."""
    flight = _Flight()

    def begin(run: Planned) -> None:
        if run.config is not None:
            flight.flying[hands.executor.submit(perform, work.job(run, run.config), hands.wanted)] = run

    try:
        for run in work.to_do:
            begin(run)
        looked = time.monotonic()
        while flight.flying or flight.elsewhere:
            check()
            if time.monotonic() > deadline:
                raise KeyboardInterrupt
            _settle_what_has_ended(work, flight)
            if time.monotonic() - looked > PATIENCE:
                looked = time.monotonic()
                work.look()
                _take_up_what_others_left(work, flight, begin)
            show()
    except KeyboardInterrupt:
        hands.dismiss()
        wait(flight.flying, timeout=2 * GRACE)
        _settle_what_has_ended(work, flight)
        raise


def _settle_what_has_ended(work: _Work, flight: _Flight) -> None:
    if not flight.flying:
        time.sleep(LOOK)
    for future in wait(flight.flying, timeout=LOOK, return_when=FIRST_COMPLETED).done:
        run, outcome = flight.flying.pop(future), _outcome(future)
        if outcome.state == "busy":
            flight.elsewhere.append(run)
        else:
            work.settle(run, outcome)


def _take_up_what_others_left(work: _Work, flight: _Flight, begin: Callable[[Planned], None]) -> None:
    """Of the runs that others train: note those that are complete, and go on with those that nobody trains any more."""
    for run in list(flight.elsewhere):
        if work.is_free(run):  # asked first: who lets go of a run has saved it
            flight.elsewhere.remove(run)
            if not work.settled_if_complete(run):
                begin(run)


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except CancelledError:
        return Outcome("failed", "the cluster lost it; the same command goes on with it")
    except Exception as error:  # a worker's: it was killed again and again, or has another version
        return Outcome("failed", f"{type(error).__name__}: {one_line(error)}")
