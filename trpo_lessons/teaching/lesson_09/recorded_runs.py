"""What lesson 09 shows from recordings: learning curves by steps and by the clock, policies at stages, broken runs."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons.bench.compare import ZOO
from trpo_lessons.bench.policies import Kept, kept_policies
from trpo_lessons.bench.record import seconds_of
from trpo_lessons.training.running import log_file
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.style import BLUE, ORANGE, VERMILION

Floats = npt.NDArray[np.float64]

TASKS = ("swimmer", "hopper", "walker", "halfcheetah")
OURS, VINE, PEER = "single path", "vine", "sb3-contrib"
FOLDERS = {OURS: ZOO / "class_preset", VINE: ZOO / "class_preset_vine", PEER: ZOO / "sb3_contrib"}
LOOKS = {OURS: (BLUE, "-"), VINE: (ORANGE, "--"), PEER: (VERMILION, ":")}

# ---- learning curves -------------------------------------------------------------------------------------------------

STEPS, RECORDED, FASTEST = "simulator steps", "seconds, as recorded", "seconds, at the fastest seed's pace"
AXES = (STEPS, RECORDED, FASTEST)


@dataclass(frozen=True)
class Learned:
    """How one run learned: simulator steps, seconds since its beginning and mean return of the latest 100 episodes,
    [n] each, and what the trained policy scored (mean return of 20 episodes, most likely actions)."""

    seed: int
    steps: Floats
    seconds: Floats
    returns: Floats
    score: float


@functools.cache
def learned(task: str, scheme: str) -> tuple[Learned, ...]:
    """The recorded runs of a task, a run a seed; none where there are no recordings."""
    return tuple(_learned(folder) for folder in sorted(FOLDERS[scheme].glob(f"{task}-seed*")))


def _learned(folder: Path) -> Learned:
    summary = json.loads((folder / "summary.json").read_text())
    if (folder / "config.json").exists():
        rows, settings = RunFolder(folder).rows(), json.loads((folder / "config.json").read_text())["settings"]
        steps, returns = _columns(rows, "total_steps", "mean_return")
        seconds = np.cumsum([seconds_of(row, settings["threads"]) for row in rows])
    else:  # sb3-contrib's own log
        log = list(csv.DictReader(io.StringIO(log_file.text_of(log_file.path_in(folder)), newline="")))
        steps, returns, seconds = _columns(log, "time/total_timesteps", "rollout/ep_rew_mean", "time/time_elapsed")
    known = np.flatnonzero(np.isfinite(returns))  # no episode has ended before
    known = known[_after_the_last_hole(steps[known]) :]
    return Learned(summary["seed"], steps[known], seconds[known], returns[known], summary["mean_return"])


def _after_the_last_hole(steps: Floats) -> int:
    """Where the rest of a log begins that has no hole.

    Two processes wrote into one of the peer's, the same run twice: iterations 2 to 37, and from 335 on, are lost.
    """
    apart = np.diff(steps)
    holes = np.flatnonzero(apart > 20 * np.median(apart))
    return int(holes[-1]) + 1 if len(holes) else 0


def _columns(rows: Sequence[Mapping[str, str]], *names: str) -> list[Floats]:
    return [np.array([float(row[name] or "nan") for row in rows]) for name in names]


def pace(task: str, scheme: str) -> float:
    """Seconds for a simulator step in the recorded run that was fastest: the one that others disturbed least."""
    return min(float(run.seconds[-1] / run.steps[-1]) for run in learned(task, scheme))


def places(task: str, scheme: str, axis: str) -> list[Floats]:
    """Where the points of each run lie on one of AXES."""
    if axis == FASTEST:
        each = pace(task, scheme)
        return [run.steps * each for run in learned(task, scheme)]
    return [run.steps if axis == STEPS else run.seconds for run in learned(task, scheme)]


def mean_and_interval(
    where: Sequence[Floats], returns: Sequence[Floats], at: Floats, confidence: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """The mean over seeds at the places `at` [m], and the ends of its interval by Student's t; [m] each.

    where, returns: by seed, the places of its points, rising, and its returns there. Between two points a return is
        that of the line through them; where not all seeds have come that far, there is no mean (nan).
    """
    values = np.array([np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in zip(where, returns, strict=True)])
    mean, seeds = values.mean(0), len(values)
    far = stats.t.ppf((1 + confidence) / 2, seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds)
    return mean, mean - far, mean + far


def first_at(task: str, scheme: str, level: float, axis: str) -> list[float]:
    """By seed, where the mean return of the latest 100 episodes first reached `level`; infinite where it never did."""
    found = []
    for run, where in zip(learned(task, scheme), places(task, scheme, axis), strict=True):
        there = run.returns >= level
        found.append(float(where[there.argmax()]) if there.any() else math.inf)
    return found


# ---- policies at stages of their training ----------------------------------------------------------------------------

STAGES = ZOO / "stages"


@functools.cache
def stages_of(task: str) -> tuple[Kept, ...]:
    """A recorded run's policy at some stages of its training, from early to late; the last is the trained one."""
    return tuple(sorted(kept_policies(STAGES / task).values(), key=lambda kept: kept.run.iteration))


# ---- sizes of a step -------------------------------------------------------------------------------------------------


LAST_POLICIES = ZOO / "step_size_policies"


def last_policy(kind: str, value: float) -> Kept:
    """Of Hopper's runs with this DELTA or PENALTY, the policy that seed 0 ended with."""
    return kept_policies(LAST_POLICIES)[f"hopper-{kind}={value:g}-seed0"]
