"""How far the paper's own budgets came here; lessons 09 and 10 show it.

`zoo/paper_preset` keeps curves of runs with the `paper` preset, made by `bench.curves`. They ended before the paper's
last iteration. What that would have taken is extrapolated, and called so wherever it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.training import preset
from trpo_lessons.zoo_names import ZOO

PAPER_PRESET = ZOO / "paper_preset"


@dataclass(frozen=True)
class PaperBudget:
    """A run with the paper's settings.

    done, wanted  iterations that it had, and that the paper had
    hours         what those it had took, by their phases, with the threads of its command
    """

    task: str
    curve: Curves
    done: int
    wanted: int
    hours: float

    @property
    def hours_in_full(self) -> float:
        """Extrapolated: all iterations taken to cost what those here did, on average."""
        return self.hours * self.wanted / self.done

    @property
    def steps_of_an_iteration(self) -> float:
        """Simulator steps."""
        return float(self.curve.facts["total_steps"]) / self.done

    def __str__(self) -> str:
        of_all = f"{self.done} of {self.wanted} iterations of {self.steps_of_an_iteration:,.0f} steps"
        whole = "" if self.done >= self.wanted else f"; in full, extrapolated: {self.hours_in_full:.1f} hours"
        return f"{self.task}: {of_all} took {self.hours:.2f} hours{whole}"


def paper_budget(task: str, folder: Path = PAPER_PRESET) -> PaperBudget:
    """The run that is kept of a task. Raises KeyError where there is none."""
    curves = {curve.facts["settings"]["task"]: curve for curve in kept_curves(folder).values()}
    facts = curves[task].facts
    wanted = preset(task, "paper").iterations
    return PaperBudget(task, curves[task], facts["iterations"], wanted, facts["wall_seconds"] / 3600)
