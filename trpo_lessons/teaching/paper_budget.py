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
    """A run with the paper's settings, by its curve."""

    curve: Curves

    @property
    def task(self) -> str:
        """Its task."""
        return str(self.curve.facts["settings"]["task"])

    @property
    def done(self) -> int:
        """How many iterations it had."""
        return int(self.curve.facts["iterations"])

    @property
    def wanted(self) -> int:
        """How many the paper had."""
        return preset(self.task, "paper").iterations

    @property
    def hours(self) -> float:
        """What its iterations took, by their phases, with the threads of its command and what else ran beside it."""
        return float(self.curve.facts["wall_seconds"]) / 3600

    @property
    def hours_in_full(self) -> float:
        """Extrapolated: all iterations taken to cost what those here did, on average."""
        return self.hours * self.wanted / self.done

    def __str__(self) -> str:
        steps = self.curve.facts["total_steps"] / self.done
        whole = "" if self.done >= self.wanted else f"\n(in full, extrapolated: {self.hours_in_full:.1f} hours)"
        iterations = f"{self.done} of {self.wanted} iterations of {steps:,.0f} steps"
        return f"{self.task}: {iterations} took {self.hours:.2f} hours{whole}"


def paper_budget(task: str, folder: Path = PAPER_PRESET) -> PaperBudget:
    """The run that is kept of a task. Raises KeyError where there is none."""
    budgets = [PaperBudget(curve) for curve in kept_curves(folder).values()]
    return {budget.task: budget for budget in budgets}[task]
