"""What a sweep has come to, in a table: a line for each method on each task with each setting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sweeping.plan import Planned


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep.

    state         complete, stopped, or failed; a stopped one may not have begun
    line          of a failed one, why
    final_return  of a complete one: the mean return of the latest 100 episodes that it saw
    remarks       what else should be known of it, a line each
    """

    plan: Planned
    folder: Path
    state: str
    line: str = ""
    final_return: float = math.nan
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the sweep."""
        return self.plan.name


def final_return(folder: Path) -> float:
    """The mean return in the last row of a complete run. Raises RunError when its log is damaged."""
    run = RunFolder(folder)
    iteration, _ = run.progress()
    return float(run.rows_of(iteration)[-1]["mean_return"])


@dataclass
class _Line:
    task: str
    method: str
    settings: str
    runs: list[SweptRun] = field(default_factory=list)

    def words(self) -> list[str]:
        returns = [run.final_return for run in self.runs if run.state == "complete"]
        failed = ", ".join(f"seed {run.plan.asked.get('seed', 0)}" for run in self.runs if run.state == "failed")
        settings = self.settings or "-"
        return [self.task, self.method, settings, f"{len(returns)} of {len(self.runs)}", *_mean(returns), failed]


def _mean(returns: Sequence[float]) -> tuple[str, str]:
    if not returns:
        return "", ""
    error = f"± {statistics.stdev(returns) / math.sqrt(len(returns)):.1f}" if len(returns) > 1 else ""
    return f"{statistics.fmean(returns):.1f}", "" if "nan" in error else error


_TITLES = ["task", "method", "settings", "seeds", "final return", "s.e.", "failed"]
_RIGHT = {"seeds", "final return", "s.e."}


def as_text(runs: Sequence[SweptRun]) -> str:
    """For each method, task and setting: how many seeds are complete, the mean of their final returns with its standard
    error, and which have failed."""
    lines: dict[str, _Line] = {}
    for run in runs:
        plan = run.plan
        group = " vine".join([plan.method, ""]).rstrip() if plan.asked.get("sampling") == "vine" else plan.method
        lines.setdefault(plan.group, _Line(plan.task, group, plan.settings)).runs.append(run)
    rows = [_TITLES, *(line.words() for line in lines.values())]
    used = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return "\n".join("  ".join(words).rstrip() for words in zip(*map(_aligned, used), strict=True))


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    return [word.rjust(width) if column[0] in _RIGHT else word.ljust(width) for word in column]
