"""Figure 4 of the paper, from nothing: nine methods on the cart-pole, eight on three robots, five seeds each.

    python -m trpo_lessons.bench.figure_4 run OUT                               # 10 to 15 hours of one core
    python -m trpo_lessons.bench.figure_4 keep OUT --out trpo_lessons/zoo/figure_4
    python -m trpo_lessons.bench.figure_4 draw figure_4.png                     # from what is kept
    python -m trpo_lessons.bench.figure_4 table

`run` can be stopped, and goes on with what is missing. On the robots every method has one setting of its own; the best
of five values is chosen by half a budget on a seed that is not reported. All else is the `class` preset's: gradient
methods share their advantages and value function, searches have linear policies. Rewards are Gymnasium's, whose costs
of control (1e-3 on hopper and walker, 1e-4 on swimmer) are not the paper's.

Beside it stands one robot by two methods without value function and GAE: with returns, as the paper has them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lessons import training
from trpo_lessons.bench import curves
from trpo_lessons.bench.figure_4_results import KEPT, METHODS, ROBOTS, drawn, method_of, table, tried
from trpo_lessons.training import RunError, SettingError, Sweep
from trpo_lessons.training.running.run_folder import RunFolder, json_text

CARTPOLE = "barto-cartpole"
TUNING_SEEDS, SEEDS = (100,), (0, 1, 2, 3, 4)
TUNING_STEPS, STEPS, CARTPOLE_STEPS = 500_000, 1_000_000, 250_000
MANY = 10_000  # iterations; more than the cart-pole's budget has
EPISODES = 20
PICTURE = "figure_4.png"
_DELTA = (0.001, 0.003, 0.01, 0.03, 0.1)
GRIDS: Mapping[str, tuple[str, Sequence[float]]] = {
    "trpo": ("delta", _DELTA),
    "vine": ("delta", _DELTA),
    "natural-gradient": ("penalty", (0.17, 0.5, 1.5, 4.5, 13.5)),
    "empirical-fim": ("delta", _DELTA),
    "rwr": ("temperature", (0.5, 1, 2, 4, 8)),
    "reps": ("epsilon", (0.03, 0.1, 0.25, 0.5, 1)),
    "cem": ("initial_std", (0.1, 0.2, 0.3, 0.6, 1)),
    "cma": ("initial_std", (0.03, 0.1, 0.3, 0.6, 1)),
}
"""Of each method: its setting, and the values that are tried on every robot."""
RETURNS_TASK, RETURNS_SEEDS = "hopper", (0, 1, 2)
WITH_RETURNS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "trpo": {"delta": (0.003, 0.01, 0.03), "value_hidden": [()]},
    "natural-gradient": {"penalty": (0.5, 1.5, 4.5), "value_hidden": [()]},
}
"""Advantages are what was earned from a step on, standardised: Monte Carlo, and no value function."""


@dataclass(frozen=True)
class Scored:
    """What the last policy of a run earns: the mean return of `EPISODES` deterministic episodes."""

    mean: float
    standard_error: float


def run(out: Path, robots: Sequence[str] = ROBOTS, **how: Any) -> None:
    """Tune, choose, train and score everything in `out`, as far as it is not there already.

    how: workers, on, progress, stop_after; as `training.sweep` has them.

    Raises RunError when it was stopped, or when runs have failed: a line for each.
    """
    for task in robots:
        _tune(out / "tuning", task, **how)
        for name, value in chosen(out / "tuning", task).items():
            _sweep(out / "finals", task, name, SEEDS, {GRIDS[name][0]: [value]}, step_budget=STEPS, **how)
    for name in METHODS:
        _sweep(out / "finals", CARTPOLE, name, SEEDS, {}, step_budget=CARTPOLE_STEPS, iterations=MANY, **how)
    for name, settings in WITH_RETURNS.items():
        _sweep(out / "returns", RETURNS_TASK, name, RETURNS_SEEDS, settings, step_budget=STEPS, **how)
    scores(out / "finals")


def _tune(out: Path, task: str, **how: Any) -> None:
    for name, (setting, values) in GRIDS.items():
        _sweep(out, task, name, TUNING_SEEDS, {setting: values}, step_budget=TUNING_STEPS, **how)


def _sweep(out: Path, task: str, name: str, seeds: Sequence[int], settings: Mapping[str, Any], **options: Any) -> Sweep:
    method, sampling = ("trpo", "vine") if name == "vine" else (name, "single-path")
    swept = training.sweep(out, [task], [method], seeds, settings, sampling=sampling, **options)
    if swept.interrupted:
        raise RunError("stopped; the same command goes on")
    if swept.failed:
        raise RunError("\n".join(f"{each.name}: {each.line}" for each in swept.failed))
    return swept


def scores(sweep: Path) -> dict[str, Scored]:
    """What every complete run of a sweep scores, by its name; kept in scores.json there, and not measured twice.

    A run that another process is still training has no score yet, though its folder has a policy.
    """
    file = sweep / "scores.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    for folder in sorted(path.parent for path in sweep.glob("*/checkpoint.safetensors")):
        if folder.name not in known and _is_complete(RunFolder(folder)):
            found = training.evaluate(training.load_run(folder), EPISODES)
            known[folder.name] = {"mean": found.mean, "standard_error": found.standard_error}
            file.write_text(json_text(known) + "\n")
    return {name: Scored(**each) for name, each in known.items()}


def _is_complete(folder: RunFolder) -> bool:
    config, _ = folder.config()
    return config.is_complete(*folder.progress())


def tuned(sweep: Path, task: str) -> dict[str, dict[float, float]]:
    """By method and by the value of its setting: the mean score over the tuning seeds."""
    measured = scores(sweep)
    return _by_value(task, {sweep / name: score.mean for name, score in measured.items()})


def _curve_ends(sweep: Path, task: str) -> dict[str, dict[float, float]]:
    """As `tuned`, but for the mean return of the latest episodes of training."""
    return _by_value(
        task, {sweep / name: float(RunFolder(sweep / name).rows()[-1]["mean_return"]) for name in scores(sweep)}
    )


def _by_value(task: str, measured: Mapping[Path, float]) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, list[float]]] = {}
    for folder, number in measured.items():
        settings = json.loads((folder / "config.json").read_text())["settings"]
        method = method_of(settings)
        if settings["task"] == task:
            values = found.setdefault(method, {})
            values.setdefault(settings[GRIDS[method][0]], []).append(number)
    return {
        method: {value: sum(found[method][value]) / len(found[method][value]) for value in sorted(found[method])}
        for method in GRIDS
        if method in found
    }


def chosen(sweep: Path, task: str) -> dict[str, float]:
    """By method, the value that scored best while it was tuned."""
    return {method: max(values, key=lambda value: values[value]) for method, values in tuned(sweep, task).items()}


def keep(out: Path, kept: Path) -> None:
    """Keep curves, scores, what was tried, and the picture of the whole comparison, in place of what `kept` held.

    Raises RunError when runs of it are not finished: a line for each.
    """
    left_out = curves.keep(out / "finals", kept) + curves.keep(out / "returns", kept / "returns")
    if left_out:
        raise RunError("\n".join(left_out))
    facts = json.loads((kept / "runs.json").read_text())["runs"]
    found = {name: score for name, score in scores(out / "finals").items() if name in facts}
    (kept / "scores.json").write_text(json_text({name: vars(score) for name, score in found.items()}) + "\n")
    tried = {}
    for task in ROBOTS:
        measured, ends = tuned(out / "tuning", task), _curve_ends(out / "tuning", task)
        tried[task] = {
            method: {
                "setting": GRIDS[method][0],
                "scores": {f"{value:g}": score for value, score in measured[method].items()},
                "curve_ends": {f"{value:g}": end for value, end in ends[method].items()},
            }
            for method in measured
        }
    facts = {"seeds": TUNING_SEEDS, "step_budget": TUNING_STEPS, "episodes": EPISODES, "tried": tried}
    (kept / "tuning.json").write_text(json_text(facts) + "\n")
    (kept / PICTURE).write_bytes(drawn(kept))


def main() -> None:
    """Run, keep, draw or list the comparison of figure 4."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    for part, told in (("run", "train what is missing"), ("keep", "keep curves and scores")):
        command = parts.add_parser(part, help=told)
        command.add_argument("folder", type=Path)
        command.add_argument(*(("--workers",) if part == "run" else ("--out",)), type=int if part == "run" else Path)
    parts.add_parser("draw", help="draw what is kept").add_argument("picture", type=Path)
    parts.add_parser("table", help="scores and intervals of what is kept, and what was tried")
    given = parser.parse_args()
    try:
        if given.part == "run":
            run(given.folder.expanduser(), workers=given.workers, progress=True)
        elif given.part == "keep":
            keep(given.folder.expanduser(), (given.out or KEPT).expanduser())
        elif given.part == "draw":
            given.picture.expanduser().write_bytes(drawn())
        else:
            print(table(), tried(), sep="\n")
    except (RunError, SettingError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
