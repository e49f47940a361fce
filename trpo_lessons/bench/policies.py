"""Keep policies without their runs, many in two small files: enough to act, too little to go on learning.

    python -m trpo_lessons.bench.policies stages --task hopper --seed 0 --at 2,30,60 --out trpo_lessons/zoo/stages
    python -m trpo_lessons.bench.policies finals RUNS --only seed0 --out trpo_lessons/zoo/step_size_policies

`stages` trains by the `class` preset with one thread and keeps the policy as it is after some iterations; a run is
the same to the bit every time, so these are the stages of the recorded run with that seed. `finals` keeps the last
policy of every finished run in a folder, such as a sweep leaves. Kept are

    policies.safetensors  for each policy theta, and the mean and squared deviations of the observations
    policies.json         for each policy its command and settings, how long it was trained, and what it scores
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trpo_lessons import envs, training
from trpo_lessons.bench.record import EPISODES, command_of
from trpo_lessons.bench.two_files import write_both
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.policies import Policy
from trpo_lessons.training import Run, RunError, TrainConfig
from trpo_lessons.training.running.acting import Spaces
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.policy_for import policy_for

FORMAT = "trpo-lessons policies, format 1"


@dataclass(frozen=True, eq=False)
class Kept:
    """A policy that can act, `run`, and what is known of it: command, iteration, total_steps, mean_return,
    standard_error and mean_length (of 20 episodes with the most likely actions)."""

    run: Run
    facts: dict[str, Any]


def stages(task: str, seed: int, at: Sequence[int]) -> dict[str, tuple[Run, int]]:
    """The policies of the class preset after the iterations `at`, by name; and how many steps it had taken.

    Raises ValueError where the preset has fewer iterations.
    """
    config, found = training.preset(task, seed=seed, threads=1), {}
    if not 0 < min(at) <= max(at) <= config.iterations:
        raise ValueError(f"{task} is trained for {config.iterations} iterations, so there is no stage {max(at)}")
    with closing(Trainer(config)) as trainer:
        spaces = Spaces.of(trainer.sampler.envs[0])
        while trainer.iteration < max(at):
            trainer.iterate()
            if (done := trainer.iteration) in at:
                run = Run(Path(), config, trainer.policy, trainer.theta.clone(), trainer.statistics, spaces, done)
                found[f"{task}-seed{seed}-{done}"] = run, trainer.total_steps
    return found


def finals(runs: Path) -> dict[str, tuple[Run, int]]:
    """The last policies of all finished runs in a folder, by the runs' names; and how many steps they had taken."""
    found = {}
    for folder in sorted(path.parent for path in runs.glob("*/config.json")):
        run, (iteration, steps) = training.load_run(folder), RunFolder(folder).progress()
        if run.config.is_complete(iteration, steps):
            found[folder.name] = run, steps
    return found


def keep(policies: dict[str, tuple[Run, int]], out: Path) -> None:
    """Score the policies and keep them, in place of those that `out` held.

    Raises RunError when there is none, or when they cannot be written.
    """
    if not policies:
        raise RunError("there is no finished run")
    tensors: dict[str, Tensor] = {}
    kept: dict[str, Any] = {}
    for name, (run, steps) in policies.items():
        scored = training.evaluate(run, EPISODES)
        parts = {"theta": run.theta, "mean": run.statistics.mean, "deviations": run.statistics.deviations}
        tensors |= {f"{name}/{part}": tensor.contiguous() for part, tensor in parts.items()}
        kept[name] = {
            "command": command_of(run.config),
            "settings": _settings_that_differ(run.config),
            "iteration": run.iteration,
            "total_steps": steps,
            "count": run.statistics.count,
            "mean_return": round(scored.mean, 1),
            "standard_error": round(scored.standard_error, 1),
            "mean_length": round(sum(scored.lengths) / len(scored.lengths), 1),
        }
    facts = {"format": FORMAT, "policies": kept}
    write_both(tensors, out / "policies.safetensors", facts, out / "policies.json")


def _settings_that_differ(config: TrainConfig) -> dict[str, Any]:
    usual = {each.name: each.default for each in dataclasses.fields(TrainConfig)}
    return {name: value for name, value in config.to_json().items() if name == "task" or value != usual[name]}


@functools.cache
def kept_policies(folder: Path) -> dict[str, Kept]:
    """What `keep` has written into `folder`, by name."""
    facts = json.loads((folder / "policies.json").read_text())["policies"]
    tensors = load_file(folder / "policies.safetensors")
    found = {}
    for name, each in facts.items():
        config = TrainConfig.from_json(each["settings"])
        policy, spaces = _policy_and_spaces(config.task, config.hidden)
        theta, mean, deviations = (tensors[f"{name}/{part}"].clone() for part in ("theta", "mean", "deviations"))
        statistics = RunningMoments(each["count"], mean, deviations)
        found[name] = Kept(Run(folder, config, policy, theta, statistics, spaces, each["iteration"]), each)
    return found


@functools.cache
def _policy_and_spaces(task: str, hidden: tuple[int, ...]) -> tuple[Policy, Spaces]:
    with closing(envs.make(task, 1, threads=1)) as env:
        return policy_for(env, TrainConfig(task, hidden=hidden)), Spaces.of(env)


def main() -> None:
    """Keep policies without their runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_stages, of_finals = kinds.add_parser("stages"), kinds.add_parser("finals")
    of_stages.add_argument("--task", required=True)
    of_stages.add_argument("--seed", type=int, required=True)
    of_stages.add_argument("--at", type=lambda text: [int(n) for n in text.split(",")], required=True)
    of_finals.add_argument("runs", type=Path)
    of_finals.add_argument("--only", default="", metavar="PATTERN", help="names of runs, a regular expression")
    for each in (of_stages, of_finals):
        each.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if given.kind == "stages":
            found = stages(given.task, given.seed, given.at)
        else:
            found = {name: each for name, each in finals(given.runs).items() if re.search(given.only, name)}
        keep(found, given.out)
    except (RunError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print(f"{len(found)} policies kept in {given.out}")


if __name__ == "__main__":
    main()
