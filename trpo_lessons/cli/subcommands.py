"""train, resume, sweep, zoo, evaluate, watch, bench and doctor: what each takes, and what it calls."""

# Everything slow to import (torch above all) is imported inside the functions, so that --help answers at once.
from __future__ import annotations

import itertools
from pathlib import Path

import click

from trpo_lessons import __version__
from trpo_lessons.cli.arguments import (
    STOP_AFTER,
    TRUST_MODULE,
    Seeds,
    Share,
    UserPath,
    list_settings,
    parse_settings,
    parse_values,
)
from trpo_lessons.cli.telling import (
    end_of_sweep,
    end_of_training,
    evaluation_as_json,
    evaluation_as_text,
    film_as_text,
    zoo_as_json,
    zoo_as_text,
)

LONGEST_FILM = 60  # s; its pictures take half a gigabyte of memory
ROBOTS = ("swimmer", "hopper", "walker", "halfcheetah")
METHODS = ("trpo", "natural-gradient", "empirical-fim", "max-kl", "rwr", "reps", "cem", "cma", "ppo")
GAMES = ("beam_rider", "breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders")


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


@commands.command()
@click.argument("task")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="trpo",
    show_default=True,
    help="How the policy is updated: TRPO, one of the methods that the paper compares it with, or PPO.",
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
    callback=list_settings,
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
    return end_of_training(training.train(config, out, progress=True, stop_after=stop_after))


@commands.command()
@click.argument("run")
@click.option("--iterations", type=int, help="Train to this many iterations altogether.")
@click.option("--step-budget", type=int, help="Or until it has taken this many simulator steps altogether.")
@click.option("--out", type=UserPath(), help="Go on in a copy of RUN, in this new folder; RUN stays as it is.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Another device than the run had; see train --help."
)
@TRUST_MODULE
@STOP_AFTER
def resume(
    run: str,
    iterations: int | None,
    step_budget: int | None,
    out: Path | None,
    device: str | None,
    trust_module: str | None,
    stop_after: float | None,
) -> int:
    """Go on with RUN as if it had never stopped.

    RUN is a run folder, or with --out the name of a policy of the zoo (as in resume hopper --out longer --iterations
    500); see evaluate --help. Its settings are those that it was started with.
    """
    from trpo_lessons import training

    chosen = None if device is None else _device(device)
    went_on, _ = training.resume(
        run,
        out,
        trust_module=trust_module,
        iterations=iterations,
        step_budget=step_budget,
        device=chosen,
        progress=True,
        stop_after=stop_after,
    )
    return end_of_training(went_on)


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
        raise click.UsageError(
            "name a task too: --task; without one, what OUT records goes on", click.get_current_context()
        )
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
    return end_of_sweep(result)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything, with the folder of each, as JSON.")
def zoo(as_json: bool) -> int:
    """List the trained policies that come with this package, and what they scored.

    evaluate, watch and resume --out take their names. A name without the number of a seed, such as hopper or
    hopper/vine, is the first of that kind. A score is the mean return of 20 whole episodes, with its standard error.
    """
    from trpo_lessons import zoo_names

    found = zoo_names.read()
    click.echo(zoo_as_json(found) if as_json else zoo_as_text(found))
    for folder in found.damaged:
        click.echo(f"trpo-lessons: {folder} cannot be read; install trpo-lessons again", err=True)
    return 2 if found.damaged else 0


@commands.command()
@click.argument("run")
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
    run: str,
    episodes: int,
    seed: int,
    time_limit: int | None,
    sampled: bool | None,
    trust_module: str | None,
    as_json: bool,
) -> None:
    """Score the policy in RUN.

    RUN is a run folder, or the name of a policy that comes with this package, such as hopper or hopper/vine/2
    (trpo-lessons zoo lists them). Where the current folder has something of that name, that is meant.

    Plays whole episodes, and of games whole games, each from a start of its own. In games actions are sampled,
    elsewhere they are the most likely ones (--sampled, --most-likely). Scores are raw, and those of whole games also
    given on a scale where a random player has 0 and a person 1.
    """
    from trpo_lessons import training

    loaded = training.load_run(run, trust_module=trust_module)
    deterministic = None if sampled is None else not sampled
    result = training.evaluate(loaded, episodes, seed, deterministic=deterministic, time_limit=time_limit)
    click.echo(evaluation_as_json(loaded, result, seed) if as_json else evaluation_as_text(loaded, result))


@commands.command()
@click.argument("run")
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
def watch(run: str, episodes: int, seconds: float, seed: int, out: Path | None, trust_module: str | None) -> None:
    """Draw the learning curve of RUN and film its policy.

    RUN is a run folder or the name of a policy of the zoo; see evaluate --help.

    Writes learning_curve.png and animation.gif. Robots are drawn by OpenGL where it works (trpo-lessons doctor tells),
    otherwise, or with MUJOCO_GL=off in the environment, as figures in the plane. A game is seen with the probabilities
    of the actions beside its screen. Where the log is damaged there is a film all the same.
    """
    if not episodes * seconds <= LONGEST_FILM:
        told = f"{episodes} times {seconds:g} s are too much: a film can have {LONGEST_FILM} s"
        raise click.UsageError(told, click.get_current_context())
    from trpo_lessons import training
    from trpo_lessons.viewing import watching

    loaded = training.load_run(run, trust_module=trust_module)
    out = out or watching.pictures_folder(loaded)
    damage = None
    try:
        click.echo(watching.draw_learning_curve(loaded, out))
    except training.RunError as error:  # of the log, which no film needs
        damage = error
    try:
        film = watching.animate(loaded, out, episodes=episodes, seconds=seconds, seed=seed)
    except training.RunError as error:
        raise training.RunError(f"{error}; {damage}" if damage else str(error)) from error
    click.echo(f"{film.path}: {film_as_text(film)}")
    if damage:
        raise damage


@commands.command()
@click.argument("task", type=click.Choice((*ROBOTS, *GAMES)), default="hopper", metavar="[TASK]")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60, show_default=True, help="Measure for so long.")
@click.option("--envs", "num_envs", type=int, help="Environments side by side.  [default: the preset's]")
@click.option("--threads", type=int, help="Of simulator and training.  [default: 2]")
@click.option(
    "--preset",
    "name",
    type=click.Choice(["class", "paper"]),
    default="class",
    show_default=True,
    help="paper: of games alone, in batches of 10,000 steps.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where updates are computed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything, every round too, as JSON.")
def bench(
    task: str, seconds: float, num_envs: int | None, threads: int | None, name: str, device: str, as_json: bool
) -> None:
    """Measure how fast training is.

    TASK is swimmer, hopper (the default), walker, halfcheetah, or a game. Environment and training are compared with a
    ceiling: MuJoCo's own open-loop rollout, or games in the emulator's own threads without a policy; the phases of an
    iteration with each other; a Fisher product with a gradient; and training of robots with sb3-contrib where that is
    installed. Games are trained by both schemes, robots by single paths. Everything is measured in turns, and what is
    compared was measured side by side.
    """
    from trpo_lessons.bench import speed, table
    from trpo_lessons.training.running.run_folder import json_text

    given = {"num_envs": num_envs, "threads": threads}
    config = speed.config_for(
        task, name, device=_device(device), **{key: count for key, count in given.items() if count is not None}
    )
    numbers = itertools.count(1)
    result = speed.measure(config, seconds, lambda each: click.echo(table.as_line(next(numbers), each), err=True))
    click.echo(json_text(table.as_facts(result)) if as_json else table.as_text(result))


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
