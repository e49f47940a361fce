"""Keep the curves of many runs in two small files: what a comparison shows, without logs and policies.

    python -m trpo_lessons.bench.curves RUNS --out trpo_lessons/zoo/step_size
    python -m trpo_lessons.bench.curves RUNS --out trpo_lessons/zoo/game_experiments --add    # to what is kept there

RUNS holds run folders, such as a sweep leaves. Kept are

    curves.safetensors  for each run a float32 matrix [points, columns], at most `POINTS` points
    runs.json           for each run its command, the settings in which the runs differ, how many steps it took and on
                        which machine, with which versions; the columns; and which folders were left out, and why

A point stands for several iterations in a row: `COLUMNS` says how their values become one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from trpo_lessons.bench.record import command_of, seconds_of
from trpo_lessons.bench.two_files import write_both
from trpo_lessons.training import RunError, TrainConfig
from trpo_lessons.training.running.run_folder import RunFolder

FORMAT = "trpo-lessons curves, format 1"
POINTS = 100
Floats = NDArray[np.float64]
COLUMNS: dict[str, Callable[[Floats], Any]] = {
    "total_steps": np.max,
    "mean_return": np.nanmean,
    "mean_length": np.nanmean,
    "mean_kl": np.nanmean,
    "max_kl": np.nanmax,
    "entropy": np.nanmean,
    "explained_variance": np.nanmean,
    "cg_residual": np.nanmedian,
    "accepted": np.nanmean,
    "best_return": np.nanmax,
    "population_spread": np.nanmean,
}
"""What is kept of a log, as far as it has it; and what the values of several iterations become."""


ALWAYS = ("task", "method", "seed")  # of the settings, whether or not the runs differ in them


@dataclass(frozen=True)
class Curves:
    """A run's thinned log, and what it was.

    facts    command, settings, steps and others, as in runs.json
    columns  [points] each, by name
    """

    facts: Mapping[str, Any]
    columns: Mapping[str, Floats]

    def __getitem__(self, column: str) -> Floats:
        return self.columns[column]

    def final(self, column: str = "mean_return", share: float = 0.1) -> float:
        """The mean over the last `share` of the points."""
        last = self.columns[column][-max(1, round(share * len(self.columns[column]))) :]
        return float(last.mean())


def thinned(columns: Mapping[str, Floats], points: int = POINTS) -> dict[str, Floats]:
    """Columns [iterations] of a log as columns of at most `points`: as many iterations for each, to within one.

    Where nothing is known of any of them, such as a return before the first episode has ended, it is NaN.
    """
    iterations = len(next(iter(columns.values())))
    groups = np.array_split(np.arange(iterations), min(points, iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN, which is NaN
        return {
            name: np.array([COLUMNS[name](values[group]) for group in groups], dtype=np.float64)
            for name, values in columns.items()
        }


def curves_of(folder: Path) -> tuple[Curves, TrainConfig, dict[str, Any]]:
    """A finished run's curves, settings and environment.

    Raises RunError when it is not finished, or damaged.
    """
    run = RunFolder(folder)
    config, environment = run.config()
    iteration, steps = run.progress()
    if not config.is_complete(iteration, steps):
        raise RunError(f"{folder} has done {iteration} of {config.expected_iterations} iterations: resume it first")
    rows = run.rows_of(iteration)
    try:
        columns = {name: np.array([_number(row[name]) for row in rows]) for name in COLUMNS if name in rows[0]}
        seconds = sum(seconds_of(row, config.threads) for row in rows)
    except ValueError as error:
        raise RunError(f"{folder}/progress.csv is damaged ({error}); restore it from a copy") from error
    facts = {
        "command": command_of(config),
        "iterations": iteration,
        "total_steps": steps,
        "wall_seconds": round(seconds),
    }
    return Curves(facts, thinned(columns)), config, environment


def _number(text: str) -> float:
    return float(text) if text else math.nan


def differing(configs: Sequence[TrainConfig]) -> list[str]:
    """The names of the settings that not all of these share."""
    every = [config.to_json() for config in configs]
    return [name for name in every[0] if any(each[name] != every[0][name] for each in every)]


def keep(runs: Path, out: Path, *, add: bool = False) -> list[str]:
    """Keep the curves of all finished runs in `runs`, in place of what `out` held; returns why others are left out.

    add: what `out` holds stays, but for runs of the same names.

    Raises RunError when there is none, or when it cannot be written.
    """
    found: dict[str, tuple[Curves, TrainConfig, dict[str, Any]]] = {}
    left_out = []
    for folder in sorted(path.parent for path in runs.glob("*/config.json")):
        try:
            found[folder.name] = curves_of(folder)
        except RunError as error:
            left_out.append(str(error))
    if not found:
        raise RunError(f"there is no finished run in {runs}")
    before = kept_curves(out) if add and (out / "runs.json").exists() else {}
    told = {setting for curves in before.values() for setting in curves.facts["settings"]}
    told |= {*ALWAYS, *differing([config for _, config, _ in found.values()])}
    every: dict[str, Curves] = dict(before)
    for name, (curves, config, environment) in found.items():
        settings = {setting: value for setting, value in config.to_json().items() if setting in told}
        every[name] = Curves({**curves.facts, "settings": settings, "environment": environment}, curves.columns)
    _write(every, out)
    return left_out


def _write(every: Mapping[str, Curves], out: Path) -> None:
    """Each machine with its versions is written once, and the runs say which of them was theirs."""
    kinds = [kind for kind in COLUMNS if any(kind in curves.columns for curves in every.values())]
    environments: list[Any] = []
    kept, tensors = {}, {}
    for name, curves in every.items():
        if curves.facts["environment"] not in environments:
            environments.append(curves.facts["environment"])
        kept[name] = {**curves.facts, "environment": environments.index(curves.facts["environment"])}
        nothing = np.full_like(curves["total_steps"], np.nan)
        rows = np.stack([curves.columns.get(kind, nothing) for kind in kinds], axis=1)
        tensors[name] = torch.from_numpy(rows).float().contiguous()
    facts = {"format": FORMAT, "columns": kinds, "environments": environments, "runs": kept}
    write_both(tensors, out / "curves.safetensors", facts, out / "runs.json")


def kept_curves(folder: Path) -> dict[str, Curves]:
    """What `keep` has written into `folder`, by the names of the runs; their facts hold the environment itself."""
    facts = json.loads((folder / "runs.json").read_text())
    tensors = load_file(folder / "curves.safetensors")
    return {
        name: Curves(
            {**run, "environment": facts["environments"][run["environment"]]},
            dict(zip(facts["columns"], tensors[name].double().numpy().T, strict=True)),
        )
        for name, run in facts["runs"].items()
    }


def main() -> None:
    """Keep the curves of all finished runs in a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--add", action="store_true", help="Leave what OUT holds, but for runs of the same names.")
    arguments = parser.parse_args()
    try:
        left_out = keep(arguments.runs.expanduser(), arguments.out.expanduser(), add=arguments.add)
    except RunError as error:
        parser.exit(2, f"{error}\n")
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(kept_curves(arguments.out.expanduser()))} runs kept in {arguments.out}")


if __name__ == "__main__":
    main()
