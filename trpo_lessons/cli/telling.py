"""What the command says at the end, and the exit status that goes with it."""

# Everything slow to import (torch above all) is imported inside the functions, so that --help answers at once.
from __future__ import annotations

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trpo_lessons.training import Evaluation, Run, Sweep
    from trpo_lessons.viewing.watching import Animation
    from trpo_lessons.zoo_names import Entry, Zoo

STOPPED = 130  # 128 + SIGINT, as shells have it
NOTHING_ACCEPTED = 3
SOME_FAILED = 4
MOST_REASONS = 3  # that the end of a run names


def end_of_training(run: Run) -> int:
    """Say how a run ended: steps, return, refusals, what comes next. Returns the exit status."""
    from trpo_lessons.training.running.run_folder import RunFolder, trust_option

    folder, rows = shlex.quote(str(run.folder)), RunFolder(run.folder).rows()
    again = " ".join(filter(None, [folder, trust_option(run.config.task)]))
    refused = refusals(rows)
    if run.interrupted:
        done = f"stopped after iteration {run.iteration} of {run.config.expected_iterations}{refused}"
        click.echo(f"trpo-lessons: {done}; go on with: trpo-lessons resume {again}", err=True)
        return STOPPED
    done = f"{run.iteration} iterations, {rows[-1]['total_steps']} steps, {_return_of(rows)}{refused}"
    if any(int(row["accepted"]) for row in rows):
        click.echo(f"{folder}: {done}; score it with: trpo-lessons evaluate {again}")
        return 0
    click.echo(f"trpo-lessons: {folder}: {done}; nothing was learned, the policy is the first one", err=True)
    return NOTHING_ACCEPTED


def end_of_sweep(result: Sweep) -> int:
    """Print a sweep's table and what its runs have to say. Returns the exit status."""
    if result.runs:
        click.echo(result.table())
    for run in result.runs:
        for line in (*run.remarks, *filter(None, [run.line])):
            click.echo(f"{run.name}: {line}", err=True)
    complete = sum(run.state == "complete" for run in result.runs)
    if result.interrupted:
        done = f"stopped with {complete} of {len(result.runs)} runs complete; the same command goes on"
        click.echo(f"trpo-lessons: {done}", err=True)
        return STOPPED
    if result.failed:
        done = f"{len(result.failed)} of {len(result.runs)} runs failed; the same command tries them again"
        click.echo(f"trpo-lessons: {done}", err=True)
        return SOME_FAILED
    return 0


def _return_of(rows: Sequence[Mapping[str, str]]) -> str:
    mean_return = float(rows[-1]["mean_return"])
    if math.isfinite(mean_return):
        return f"mean return {mean_return:.1f}"
    return "rewards were not finite" if any(int(row["episodes"]) for row in rows) else "no episode has ended yet"


def refusals(rows: Sequence[Mapping[str, str]]) -> str:
    """How many updates were refused and why; reasons that differ by their numbers alone are one."""
    reasons = [row["reason"] for row in rows if not int(row["accepted"])]
    if not reasons:
        return ""
    kinds = Counter(re.sub(r"-?\d[\d.]*(e[+-]?\d+)?|-?\b(nan|inf)\b", "...", reason) for reason in reasons)
    told = [f"{count} x {kind}" for kind, count in kinds.most_common(MOST_REASONS)]
    told += [f"{len(kinds) - MOST_REASONS} other reasons"] * (len(kinds) > MOST_REASONS)
    return f", {len(reasons)} of {len(rows)} updates refused ({'; '.join(told)})"


def evaluation_as_text(run: Run, result: Evaluation) -> str:
    """Score, standard error and range of whole episodes, in one line."""
    actions = "most likely" if result.deterministic else "sampled"
    beginning = f"{run.config.task} after {run.iteration} iterations, {actions} actions"
    normalised = _human_normalised(run, result)
    end = "" if normalised is None else f", human-normalised score {normalised:.3f}"
    end += f", {result.cut} cut by the time limit" * (result.cut > 0)
    if len(result.returns) == 1:
        return f"{beginning}, 1 episode: return {result.mean:.1f}, length {result.lengths[0]}{end}"
    return (
        f"{beginning}, {len(result.returns)} episodes: return {result.mean:.1f} ± {result.standard_error:.1f} "
        f"(standard error), from {min(result.returns):.1f} to {max(result.returns):.1f}, "
        f"mean length {sum(result.lengths) / len(result.lengths):.1f}{end}"
    )


def _human_normalised(run: Run, result: Evaluation) -> float | None:
    from trpo_lessons.envs.atari.scores import RANDOM_AND_HUMAN, human_normalised

    whole_games = run.config.task in RANDOM_AND_HUMAN and not result.cut
    return human_normalised(run.config.task, result.mean) if whole_games else None


def evaluation_as_json(run: Run, result: Evaluation, seed: int) -> str:
    """The same with every return, as JSON."""
    from trpo_lessons.training.running.run_folder import json_text

    facts = {
        "run": str(run.folder),
        "task": run.config.task,
        "iteration": run.iteration,
        "seed": seed,
        "mean_return": result.mean,
        "standard_error": result.standard_error if len(result.returns) > 1 else None,
        "human_normalised": _human_normalised(run, result),
        "actions": "most likely" if result.deterministic else "sampled",
        "cut_by_time_limit": result.cut,
        "returns": result.returns,
        "lengths": result.lengths,
    }
    return json_text(facts)


def zoo_as_text(zoo: Zoo) -> str:
    """A line for each policy: name, task, scheme, steps, score and standard error."""
    columns = (
        ("name", [entry.name for entry in zoo.entries]),
        ("task", [entry.task for entry in zoo.entries]),
        ("scheme", [entry.scheme for entry in zoo.entries]),
        ("steps", [f"{entry.steps:>9}" for entry in zoo.entries]),
        ("score", [_score_of(entry) for entry in zoo.entries]),
    )
    widths = [max(map(len, (title, *texts))) for title, texts in columns]
    rows = [[title for title, _ in columns], *zip(*(texts for _, texts in columns), strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _score_of(entry: Entry) -> str:
    error = "" if entry.standard_error is None else f" ± {entry.standard_error:.1f}"
    return f"{entry.score:>7.1f}{error}"


def zoo_as_json(zoo: Zoo) -> str:
    """The same as JSON, with the folder of each."""
    return json.dumps(
        [{"name": entry.name, **vars(entry), "folder": str(entry.folder)} for entry in zoo.entries], indent=2
    )


def film_as_text(film: Animation) -> str:
    """What a film shows, and what drew it, in one line."""
    words = [
        f"return {episode.score:.1f} in {episode.seconds:.1f} s" + ("" if episode.ended else " (goes on)")
        for episode in film.episodes
    ]
    reason = f" ({film.reason})" if film.reason else ""
    return f"drawn by {film.drawn_by}{reason}, {', '.join(words)}"
