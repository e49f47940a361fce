"""The `trpo-lessons` command: train, resume, evaluate and watch policies from the shell, and see what a machine can do.

Exit status: 0 done; 1 the doctor found that this machine lacks something that the course needs; 2 something is wrong
with what was asked for, with the disk, or in somebody else's environment, and one line on standard error says what to
do; 3 a run has ended, and none of its updates was accepted; 4 a sweep has ended, and some of its runs have failed; 70 a
fault of this package, with its traceback; 130 stopped by Ctrl-C, SIGTERM or --stop-after. With TRPO_LESSONS_TRACEBACK=1
in the environment a line comes with its traceback.
"""

# Everything slow to import (torch above all) is imported inside the commands, so that --help answers at once.
from __future__ import annotations

import itertools
import json
import math
import os
import re
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trpo_lessons import __version__

if TYPE_CHECKING:
    from trpo_lessons.training import Evaluation, Run, Sweep
    from trpo_lessons.viewing.watching import Animation

STOPPED = 130  # 128 + SIGINT, as shells have it
NOTHING_ACCEPTED = 3
SOME_FAILED = 4
OUR_FAULT = 70  # EX_SOFTWARE of <sysexits.h>
MOST_REASONS = 3  # that the end of a run names
MOST_SEEDS = 10_000  # in one range
LONGEST_FILM = 60  # s; its pictures take half a gigabyte of memory
ROBOTS = ("swimmer", "hopper", "walker", "halfcheetah")
METHODS = ("trpo", "natural-gradient", "empirical-fim", "max-kl", "rwr", "reps", "cem", "cma")
GAMES = ("beam_rider", "breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of this process) and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = commands.main(arguments or ["--help"], prog_name="trpo-lessons", standalone_mode=False)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "trpo-lessons"
        return _fail(f"{error.format_message()} (See {command} --help.)")
    except (click.Abort, KeyboardInterrupt):
        click.echo("trpo-lessons: stopped; a run that had begun goes on with trpo-lessons resume", err=True)
        return STOPPED
    except OSError as error:  # what a run folder could not explain better, such as a full disk behind standard output
        _discard_output()
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except Exception as error:
        if os.environ.get("TRPO_LESSONS_TRACEBACK") or not _is_expected(error):
            traceback.print_exc()
        if _is_expected(error):
            return _fail(str(error))
        told = "this is a fault of trpo-lessons; a run that had begun goes on with trpo-lessons resume RUN"
        click.echo(f"trpo-lessons: {told}", err=True)
        return OUR_FAULT
    return int(status or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def commands() -> None:
    """Trust region policy optimization: train policies, resume, evaluate, watch."""


@commands.command()
def doctor() -> int:
    """Check what works on this machine.

    Packages, simulators, rendering, widgets, GPU. The exit status is 1 when something that the course needs is missing.
    """
    from trpo_lessons.doctor import as_text, checkup

    findings = checkup()
    click.echo(as_text(findings))
    return int(any(finding.ok is False for finding in findings))


class Duration(click.ParamType[float]):
    """A time such as 90s, 25m, 1h30m; a number alone is seconds."""

    name = "time"
    _UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}  # noqa: RUF012 (never changed)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds. Fails for anything that is no time above zero."""
        text = str(value).strip().lower()
        parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text)
        try:
            found = zip(parts.groups() if parts else (), self._UNITS.values(), strict=False)
            seconds = sum(float(number) * unit for number, unit in found if number)
        except ValueError:
            seconds = 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is not a time; write 90s, 25m or 1h30m", param, ctx)
        return seconds


class UserPath(click.Path):
    """A path in which ~ is the user's home also where the shell leaves it alone, as in --out=~/run."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, expanded."""
        return Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()


TRUST_MODULE = click.option(
    "--trust-module", metavar="NAME", help="The module that a run of gym:NAME:ENV_ID may import; see YOUR_OWN.md."
)
STOP_AFTER = click.option(
    "--stop-after",
    type=Duration(),
    metavar="TIME",
    help="End after TIME (90s, 25m, 1h30m) as Ctrl-C does, also for queues with time limits.",
)


def _list_settings(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from trpo_lessons.training.settings.config import described_settings

        formatter = click.HelpFormatter(max_width=100)
        formatter.write_dl(described_settings())
        click.echo(formatter.getvalue(), nl=False)
        ctx.exit()


@commands.command()
@click.argument("task")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="trpo",
    show_default=True,
    help="How the policy is updated: TRPO, or one of the methods that the paper compares it with.",
)
@click.option(
    "--sampling",
    type=click.Choice(["single-path", "vine"]),
    default="single-path",
    show_default=True,
    help="How actions are tried: on the way, or several in the same state (not with gym: tasks).",
)
@click.option(
    "--preset",
    type=click.Choice(["smoke", "class", "paper"]),
    default="class",
    show_default=True,
    help="smoke takes seconds and learns little; class minutes on two CPU cores, games an hour or so; paper has the "
    "paper's budgets and takes hours.",
)
@click.option("--iterations", type=int, help="How many updates, or generations of a population.")
@click.option(
    "--steps-per-iteration", type=int, help="Simulator steps of each update; for the vine, trunk and branches, at most."
)
@click.option("--seed", type=int, help="The same seed gives the same run.  [default: 0]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where updates are computed; auto takes a GPU if there is one.",
)
@click.option(
    "--out",
    type=UserPath(),
    help="A new folder for the run.  [default: runs/TASK-seedN, of another method than trpo runs/TASK-METHOD-seedN]",
)
@STOP_AFTER
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Any other setting, as config.json names it (gamma=0.995, hidden=64,64); can be repeated.",
)
@click.option(
    "--list-settings",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_settings,
    help="List all settings: what each may be, and its default.",
)
def train(
    task: str,
    preset: str,
    device: str,
    out: Path | None,
    stop_after: float | None,
    settings: tuple[str, ...],
    **options: int | str | None,
) -> int:
    """Train a policy for TASK.

    TASK is cartpole, barto-cartpole, swimmer, hopper, walker, halfcheetah; a game seen as pixels: beam_rider, breakout,
    enduro, pong, qbert, seaquest, space_invaders; or gym:ENV_ID for any Gymnasium environment with box or discrete
    spaces, gym:MODULE:ENV_ID for one that a module registers, here in the current folder or installed. The run
    folder gets config.json, progress.csv, events for TensorBoard, and a checkpoint after every iteration. Ctrl-C
    stops; trpo-lessons resume goes on. Where runs/TASK-seedN is taken, runs/TASK-seedN-2 is used, and so on.

    The bar shows the mean return of the latest 100 episodes, the mean KL (nats) and the length of the step in the
    policy's parameters, how much of the variance of returns the value function explains, and how many updates were
    refused; of cem and cma, which let populations of policies play whole episodes, the best return of a generation and
    how far the population is spread.
    """
    from trpo_lessons import training

    overrides = {name: value for name, value in options.items() if value is not None} | parse_settings(settings)
    config = training.preset(task, preset, device=_device(device), **overrides)
    return _end_of_training(training.train(config, out, progress=True, stop_after=stop_after))


@commands.command()
@click.argument("run", type=UserPath())
@click.option("--iterations", type=int, help="Train to this many iterations altogether.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Another device than the run had; see train --help."
)
@TRUST_MODULE
@STOP_AFTER
def resume(
    run: Path, iterations: int | None, device: str | None, trust_module: str | None, stop_after: float | None
) -> int:
    """Go on with RUN as if it had never stopped.

    RUN is a run folder; its settings are those that it was started with.
    """
    from trpo_lessons import training

    chosen = None if device is None else _device(device)
    for difference in training.differences(run, chosen, trust_module=trust_module):
        click.echo(f"trpo-lessons: {difference}; the result will not be the same to the bit", err=True)
    went_on, _ = training.resume(
        run, trust_module=trust_module, iterations=iterations, device=chosen, progress=True, stop_after=stop_after
    )
    return _end_of_training(went_on)


class Seeds(click.ParamType[tuple[int, ...]]):
    """Whole numbers and ranges of them, such as 0-4 or 0,3,10-12."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """All seeds, each once. Fails for what is neither a number nor a range."""
        seeds: dict[int, None] = {}
        for part in str(value).split(","):
            ends = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
            low, high = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
            if not low <= high < low + MOST_SEEDS:
                self.fail(f"{value!r} are no seeds; write 0-4 or 0,3,10-12", param, ctx)
            seeds |= dict.fromkeys(range(low, high + 1))
        return tuple(seeds)


class Share(click.ParamType[tuple[int, int]]):
    """One of several shares, such as 2/10."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Its number, from 1, and how many there are. Fails for what is no share."""
        parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value).strip())
        number, shares = (int(parts[1]), int(parts[2])) if parts else (0, 0)
        if not 1 <= number <= shares:
            self.fail(f"{value!r} is no share; write 1/10 to 10/10 for the ten shares of a sweep", param, ctx)
        return number, shares


@commands.command()
@click.argument("out", type=UserPath())
@click.option("--task", "tasks", multiple=True, help="A task, as train has it; can be repeated, like all that follow.")
@click.option("--method", "methods", type=click.Choice(METHODS), multiple=True, help="  [default: trpo]")
@click.option("--seeds", type=Seeds(), metavar="SEEDS", help="As in 0-4 or 0,3,10-12.  [default: 0]")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUES",
    multiple=True,
    help="A setting and its values (delta=.003,.01,.03), each of which is a run; of one method or task alone with its "
    "name before it (trpo:delta=.01, hopper:gamma=.995). Repeated, it adds values, as for hidden=64,64.",
)
@click.option("--sampling", type=click.Choice(["single-path", "vine"]), help="As for train.  [default: single-path]")
@click.option("--preset", type=click.Choice(["smoke", "class", "paper"]), help="As for train.  [default: class]")
@click.option("--iterations", type=int, help="How many updates, in every run.")
@click.option("--steps-per-iteration", type=int, help="Simulator steps of each update, in every run.")
@click.option("--step-budget", type=int, help="Every run ends after the update that takes it to so many steps.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where updates are computed.  [default: cpu]")
@click.option("--workers", type=click.IntRange(min=1), help="So many runs at a time.  [default: one for each core]")
@click.option("--on", metavar="ADDRESS", help="Let the workers of the Dask scheduler there carry out the runs.")
@click.option("--only", type=Share(), metavar="K/N", help="Share K of N of the runs, for array jobs of a queue.")
@click.option("--trust-module", "trust_modules", metavar="NAME", multiple=True, help="As for resume.")
@STOP_AFTER
def sweep(
    out: Path,
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    workers: int | None,
    on: str | None,
    only: tuple[int, int] | None,
    trust_modules: tuple[str, ...],
    stop_after: float | None,
    **options: int | str | None,
) -> int:
    """Train every task by every method with every seed and setting, each in a run folder in OUT.

    The same command in the same OUT goes on: complete runs are skipped, runs that were broken off are resumed, failed
    ones are tried again. So does trpo-lessons sweep OUT, with all that OUT/sweep.json records. Runs have one thread
    unless told otherwise (--set threads=2), and are to the bit what train makes of the same settings. Ctrl-C stops all.

    On a cluster OUT must be a folder that all of its machines see. With --on, a worker has as many runs at a time as it
    has threads.

    In the end a table shows the mean of the final returns (of the latest 100 episodes) over seeds, and failed runs are
    listed, each with what it failed with; the exit status is 4 then.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not tasks and (methods or seeds or settings or given):
        raise click.UsageError("name a task too: --task; without one, what OUT records goes on", _context())
    from trpo_lessons import training

    result = training.sweep(
        out,
        tasks,
        methods or ("trpo",),
        seeds or (0,),
        parse_values(settings),
        workers=workers,
        on=on,
        only=only,
        trust_modules=trust_modules,
        stop_after=stop_after,
        progress=True,
        **given,
    )
    return _end_of_sweep(result)


@commands.command()
@click.argument("run", type=UserPath())
@click.option("--episodes", type=click.IntRange(min=1), default=20, show_default=True, help="How many whole episodes.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the initial states.")
@click.option("--time-limit", type=click.IntRange(min=1), help="Cut episodes after so many steps.")
@click.option(
    "--sampled/--most-likely",
    default=None,
    help="Which action the policy takes in every state.  [default: --sampled in games, otherwise --most-likely]",
)
@TRUST_MODULE
@click.option("--json", "as_json", is_flag=True, help="Print every return, as JSON.")
def evaluate(
    run: Path,
    episodes: int,
    seed: int,
    time_limit: int | None,
    sampled: bool | None,
    trust_module: str | None,
    as_json: bool,
) -> None:
    """Score the policy in RUN, a run folder.

    Plays whole episodes, and of games whole games, each from a start of its own. In games actions are sampled,
    elsewhere they are the most likely ones (--sampled, --most-likely). Scores are raw, and those of whole games also
    given on a scale where a random player has 0 and a person 1.
    """
    from trpo_lessons import training

    loaded = training.load_run(run, trust_module=trust_module)
    deterministic = None if sampled is None else not sampled
    result = training.evaluate(loaded, episodes, seed, deterministic=deterministic, time_limit=time_limit)
    click.echo(_evaluation_as_json(loaded, result, seed) if as_json else _evaluation_as_text(loaded, result))


@commands.command()
@click.argument("run", type=UserPath())
@click.option("--episodes", type=click.IntRange(min=1), default=1, show_default=True, help="How many episodes to film.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Film so much of each episode, in real time.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the initial states.")
@click.option(
    "--out",
    type=UserPath(),
    help="The folder for both files.  [default: RUN, or the current folder where RUN is recorded or read-only]",
)
@TRUST_MODULE
def watch(run: Path, episodes: int, seconds: float, seed: int, out: Path | None, trust_module: str | None) -> None:
    """Draw the learning curve of RUN and film its policy.

    Writes learning_curve.png and animation.gif. Robots are drawn by OpenGL where it works (trpo-lessons doctor tells),
    otherwise, or with MUJOCO_GL=off in the environment, as figures in the plane. A game is seen with the probabilities
    of the actions beside its screen.
    """
    if not episodes * seconds <= LONGEST_FILM:
        told = f"{episodes} times {seconds:g} s are too much: a film can have {LONGEST_FILM} s"
        raise click.UsageError(told, click.get_current_context())
    from trpo_lessons import training
    from trpo_lessons.viewing import watching

    loaded = training.load_run(run, trust_module=trust_module)
    out = out or watching.pictures_folder(loaded)
    click.echo(watching.draw_learning_curve(loaded, out))
    film = watching.animate(loaded, out, episodes=episodes, seconds=seconds, seed=seed)
    click.echo(f"{film.path}: {_film_as_text(film)}")


@commands.command()
@click.argument("task", type=click.Choice((*ROBOTS, *GAMES)), default="hopper", metavar="[TASK]")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60, show_default=True, help="Measure for so long.")
@click.option("--envs", "num_envs", type=int, help="Environments side by side.  [default: the preset's]")
@click.option("--threads", type=int, help="Of simulator and training.  [default: 2]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where updates are computed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything, every round too, as JSON.")
def bench(task: str, seconds: float, num_envs: int | None, threads: int | None, device: str, as_json: bool) -> None:
    """Measure how fast training is.

    TASK is swimmer, hopper (the default), walker, halfcheetah, or a game. Environment and training are compared with a
    ceiling: MuJoCo's own open-loop rollout, or games in the emulator's own threads without a policy; the phases of an
    iteration with each other; a Fisher product with a gradient; and training of robots with sb3-contrib where that is
    installed. Robots are trained as in the class preset, games with the paper's network. Everything is measured in
    turns, and what is compared was measured side by side.
    """
    from trpo_lessons.bench import speed, table
    from trpo_lessons.training.running.run_folder import json_text

    given = {"num_envs": num_envs, "threads": threads}
    config = speed.config_for(
        task, device=_device(device), **{name: count for name, count in given.items() if count is not None}
    )
    numbers = itertools.count(1)
    result = speed.measure(config, seconds, lambda each: click.echo(table.as_line(next(numbers), each), err=True))
    click.echo(json_text(table.as_facts(result)) if as_json else table.as_text(result))


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """The settings that `--set NAME=VALUE` options give. Raises UsageError for what cannot be one."""
    from trpo_lessons.training.settings.config import OWN_OPTIONS

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise click.UsageError(f"--set needs NAME=VALUE, not {pair!r}", click.get_current_context(silent=True))
        if name in ("task", *OWN_OPTIONS):
            own = "the argument TASK" if name == "task" else "the option --" + name.replace("_", "-")
            raise click.UsageError(f"--set {pair}: use {own} for it", click.get_current_context(silent=True))
        settings[name] = _parse_value(name, text)
    return settings


def parse_values(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """What `--set NAME=VALUES` options give a sweep: values by name. Raises UsageError for what cannot be a setting."""
    values: dict[str, list[Any]] = {}
    for pair in pairs:
        left, equals, right = pair.partition("=")
        scope, colon, name = left.strip().rpartition(":")
        name = name.replace("-", "_")
        if option := {"seed": "--seeds", "step_budget": "--step-budget"}.get(name):
            raise click.UsageError(f"--set {pair}: use the option {option} for it", _context())
        texts = [right] if name in _WITH_COMMAS else right.split(",")
        for text in texts:
            parsed = parse_settings([f"{name}{equals}{text}"])
            values.setdefault(f"{scope}{colon}{name}", []).extend(parsed.values())
    return values


def _context() -> click.Context | None:
    return click.get_current_context(silent=True)


_WITH_COMMAS = ("hidden", "value_hidden", "env_kwargs")  # in one value


def _parse_value(name: str, text: str) -> Any:
    # What is no number stays text: the setting's own rule then says what it must be.
    if name in ("hidden", "value_hidden"):
        return tuple(_parse_number(width) for width in re.split(r"[\s,]+", text.strip("()[] ,")) if width)
    if name == "env_kwargs":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    words = {"none": None, "true": True, "false": False}
    return words[text.lower()] if text.lower() in words else _parse_number(text)


def _parse_number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _end_of_training(run: Run) -> int:
    from trpo_lessons.training.running.run_folder import RunFolder, trust_option

    folder, rows = shlex.quote(str(run.folder)), RunFolder(run.folder).rows()
    again = " ".join(filter(None, [folder, trust_option(run.config.task)]))
    refused = _refusals(rows)
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


def _end_of_sweep(result: Sweep) -> int:
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


def _refusals(rows: Sequence[Mapping[str, str]]) -> str:
    """How many updates were refused and why; reasons that differ by their numbers alone are one."""
    reasons = [row["reason"] for row in rows if not int(row["accepted"])]
    if not reasons:
        return ""
    kinds = Counter(re.sub(r"-?\d[\d.]*(e[+-]?\d+)?|-?\b(nan|inf)\b", "...", reason) for reason in reasons)
    told = [f"{count} x {kind}" for kind, count in kinds.most_common(MOST_REASONS)]
    told += [f"{len(kinds) - MOST_REASONS} other reasons"] * (len(kinds) > MOST_REASONS)
    return f", {len(reasons)} of {len(rows)} updates refused ({'; '.join(told)})"


def _evaluation_as_text(run: Run, result: Evaluation) -> str:
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


def _evaluation_as_json(run: Run, result: Evaluation, seed: int) -> str:
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


def _film_as_text(film: Animation) -> str:
    words = [
        f"return {episode.score:.1f} in {episode.seconds:.1f} s" + ("" if episode.ended else " (goes on)")
        for episode in film.episodes
    ]
    reason = f" ({film.reason})" if film.reason else ""
    return f"drawn by {film.drawn_by}{reason}, {', '.join(words)}"


def _is_expected(error: Exception) -> bool:
    from trpo_lessons.envs import UnknownTask
    from trpo_lessons.envs.atari import WorkerError
    from trpo_lessons.training import RunError, SettingError

    return isinstance(error, UnknownTask | WorkerError | RunError | SettingError)


def _fail(message: str) -> int:
    click.echo(f"trpo-lessons: {' '.join(message.split())}", err=True)
    return 2


def _discard_output() -> None:
    # Python writes what is left in its buffers as it exits, and would fail on it again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
