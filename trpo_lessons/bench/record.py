"""Keep a finished run: its folder, its command, how long it took, and what the policy scores.

    trpo-lessons train hopper --seed 0 --out RUN
    python -m trpo_lessons.bench.record RUN --out trpo_lessons/zoo/class_preset

What is kept is still a run folder, which `trpo-lessons zoo` lists by name once it lies in a folder of the zoo:
`evaluate`, `watch` and `resume --out` take it. Nothing of the checkpoint is left out, so that the policy acts the same
to the bit, and training goes on to the same bits; it is compressed, which helps most with the screens of games. Logs
are thinned to what a plot can show, and compressed too. The events for TensorBoard, which repeat the log, are not kept.
`trpo-lessons watch FOLDER --out FOLDER` adds film and learning curve.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trpo_lessons import training
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running import checkpoint_file, files, log_file
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.run_folder import RunFolder, appearing, json_text, refuse_taken
from trpo_lessons.training.settings.config import OWN_OPTIONS
from trpo_lessons.training.settings.methods import METHODS, OF_THE_VINE, SETTINGS_OF

EPISODES = 20
DIGITS = 6  # of every number in a log: a plot shows four


def record(run_folder: Path, out: Path, episodes: int = EPISODES, *, trust_module: str | None = None) -> dict[str, Any]:
    """Score the run by `episodes` episodes and keep it in out/TASK-seedN; returns what summary.json says.

    trust_module: as `training.load_run` has it.

    Raises RunError when the run is not finished, or when another one is kept there already.
    """
    run = training.load_run(run_folder, trust_module=trust_module)
    config = run.config
    rows = RunFolder(run_folder).rows_of(run.iteration)
    try:
        steps, wall_seconds = int(rows[-1]["total_steps"]), sum(seconds_of(row, config.threads) for row in rows)
    except (KeyError, ValueError) as error:
        raise RunError(f"{run_folder}/progress.csv is damaged ({error}); restore it from a copy") from error
    if not config.is_complete(run.iteration, steps):
        done = f"{run.iteration} of {config.expected_iterations} iterations"
        raise RunError(f"{run_folder} has done {done}: resume it first")
    folder = out / f"{config.task}-seed{config.seed}"
    refuse_taken(folder)
    result = training.evaluate(run, episodes)
    summary = {
        "command": command_of(config),
        "task": config.task,
        "seed": config.seed,
        "sampling": config.sampling,
        "total_steps": steps,
        "wall_seconds": round(wall_seconds),
        "mean_return": result.mean,
        "standard_error": result.standard_error,
    }
    with appearing(folder) as being_made:
        shutil.copyfile(run_folder / "config.json", being_made / "config.json")
        (being_made / checkpoint_file.COMPRESSED).write_bytes(RunFolder(run_folder).compressed_checkpoint())
        log = thinned(log_file.text_of(log_file.path_in(run_folder)))
        (being_made / log_file.COMPRESSED).write_bytes(files.compressed(log.encode()))
        with open(being_made / "evaluation.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["episode", "return", "length"])
            writer.writerows(zip(range(episodes), result.returns, result.lengths, strict=True))
        (being_made / "summary.json").write_text(json_text(summary) + "\n")
    return summary


def thinned(log: str) -> str:
    """A log with `DIGITS` significant digits of every number; whole numbers and words stay as they are."""
    thin = io.StringIO()
    writer = csv.writer(thin, lineterminator="\n")
    writer.writerows([_thinned(text) for text in row] for row in csv.reader(io.StringIO(log)))
    return thin.getvalue()


def _thinned(text: str) -> str:
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.{DIGITS}g}"
    except ValueError:
        return text


def command_of(config: TrainConfig) -> str:
    """The command that trains with these settings, under the presets of this version.

    What neither the method nor the scheme reads is left out: the command would refuse it.
    """
    sampling: dict[str, Any] = {} if config.sampling == "single-path" else {"sampling": config.sampling}
    method: dict[str, Any] = {} if config.method == "trpo" else {"method": config.method}
    usual = training.preset(config.task, config.preset, seed=config.seed, **sampling, **method).to_json()
    words = ["trpo-lessons", "train", config.task]
    for name, value in {**sampling, "preset": config.preset, "seed": config.seed, **method}.items():
        words += [f"--{name}", str(value)]
    for name, value in config.to_json().items():
        if value != usual[name] and _is_read(name, config):
            told = as_option(value)
            words += [f"--{name.replace('_', '-')}", told] if name in OWN_OPTIONS else ["--set", f"{name}={told}"]
    return shlex.join(words)


def _is_read(setting: str, config: TrainConfig) -> bool:
    if setting in OF_THE_VINE:
        return config.sampling == "vine"
    return config.method in SETTINGS_OF.get(setting, METHODS)


def as_option(value: Any) -> str:
    """A setting as a command has it, before it is quoted: a sequence with commas, keyword arguments as JSON."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value)
    return "none" if value is None else str(value)


def seconds_of(row: Mapping[str, str], threads: int) -> float:
    """How long an iteration took by its phases, a row of progress.csv; a pause before a run was resumed is in none.

    With more threads than one, V is fitted while the policy is updated.
    """
    seconds = {name.removeprefix("seconds_"): float(x) for name, x in row.items() if name.startswith("seconds_") and x}
    value = seconds.pop("value", 0.0)
    update = sum(seconds.pop(phase, 0.0) for phase in ("gradient", "cg", "search"))
    return sum(seconds.values()) + (max(value, update) if threads > 1 else value + update)


def _user_path(text: str) -> Path:
    return Path(text).expanduser()  # which shells leave alone in --out=~/kept


def main() -> None:
    """Score a finished run and keep it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=_user_path)
    parser.add_argument("--out", type=_user_path, required=True)
    parser.add_argument("--trust-module", metavar="NAME", help="The module that the run's task may import.")
    arguments = parser.parse_args()
    try:
        print(json_text(record(arguments.run, arguments.out, trust_module=arguments.trust_module)))
    except (RunError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
