"""What `measure` found, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trpo_lessons.bench.speed import Round, Speed
from trpo_lessons.envs import GAMES
from trpo_lessons.training.running.run_folder import environment_facts

RATIOS: dict[str, Callable[[Round], float]] = {
    "environment_of_ceiling": lambda r: r.environment / r.ceiling,
    "training_of_ceiling": lambda r: r.training / r.ceiling,
    "vine_of_ceiling": lambda r: (r.vine or np.nan) / r.ceiling,
    "population_of_ceiling": lambda r: (r.population or np.nan) / (r.population_ceiling or np.nan),
    "fisher_product_in_gradients": lambda r: r.fisher_product / r.gradient,
}
OF_GAMES: dict[str, Callable[[Round], float]] = {
    "vine_training_of_ceiling": lambda r: (r.vine_training or np.nan) / r.ceiling,
    "branches_to_loop": lambda r: (r.branches or np.nan) / (r.loop or np.nan),
    "branches_to_emulator": lambda r: (r.branches or np.nan) / (r.emulator or np.nan),
}
TO_PEER: Callable[[Round], float] = lambda r: r.training / (r.peer or np.nan)  # noqa: E731 (as the others)
CEILINGS = {False: "mujoco.rollout, open loop", True: "the same games in ale_py's own threads, without a policy"}
NAMES = {"cg": "conjugate gradient", "value": "value fit"}


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and between which two values the middle half of them lies."""

    median: float
    low: float
    high: float


def spread(speed: Speed, quantity: Callable[[Round], float]) -> Spread:
    """How a quantity is spread over the rounds."""
    low, median, high = np.quantile([quantity(r) for r in speed.rounds], (0.25, 0.5, 0.75)).tolist()
    return Spread(median, low, high)


def as_facts(speed: Speed) -> dict[str, Any]:
    """Everything as values for JSON: settings, machine, ratios, shares, and the rounds that they come from."""
    ratios = dict(RATIOS) if speed.no_peer else {**RATIOS, "training_to_sb3_contrib": TO_PEER}
    if speed.config.task in GAMES:
        del ratios["population_of_ceiling"]
        ratios |= OF_GAMES
    return {
        "task": speed.config.task,
        "preset": speed.config.preset,
        "num_envs": speed.config.num_envs,
        "threads": speed.config.threads,
        "environment": environment_facts(speed.config.threads, speed.config.device),
        "ratios": {name: asdict(spread(speed, ratio)) for name, ratio in ratios.items()},
        "shares": speed.shares,
        "value_fit_overlaps_update": speed.overlapping,
        "cg_search_value_together": speed.solving,
        "no_sb3_contrib": speed.no_peer,
        "rounds": [asdict(each) for each in speed.rounds],
    }


def as_text(speed: Speed) -> str:
    """The table for a terminal."""
    config = speed.config
    lines = [
        f"{config.task}, {config.preset} preset, {config.num_envs} environments, {config.threads} threads: medians of "
        f"{len(speed.rounds)} rounds, in brackets where the middle half of them lies",
        "",
        _line("ceiling", _steps(speed, lambda r: r.ceiling), CEILINGS[config.task in GAMES]),
        _line("environment alone", _steps(speed, lambda r: r.environment), _ratio(speed, "environment_of_ceiling")),
        _line("training", _steps(speed, lambda r: r.training), _ratio(speed, "training_of_ceiling")),
    ]
    vine, population = (_steps(speed, one) for one in (lambda r: r.vine or 0.0, lambda r: r.population or 0.0))
    lines.append(_line("vine sampling", vine, _ratio(speed, "vine_of_ceiling")))
    if config.task in GAMES:
        by_vine, loop, emulator = (_bracketed(spread(speed, ratio), ".2f") for ratio in OF_GAMES.values())
        trained = _steps(speed, lambda r: r.vine_training or 0.0)
        lines.append(_line("training by vine", trained, f"{by_vine} of the ceiling"))
        told = f"{loop} times one emulator in a loop, {emulator} times that without its policy"
        lines.append(_line("branches alone", _steps(speed, lambda r: r.branches or 0.0), told))
    else:
        told = f"{_ratio(speed, 'population_of_ceiling')} under its own controls"
        lines.append(_line("population", population, told))
    if speed.no_peer:
        lines.append(_line("sb3-contrib", "", f"not measured: {speed.no_peer}"))
    else:
        told = f"training is {_bracketed(spread(speed, TO_PEER), '.1f')} times as fast as its recipe (one thread)"
        lines.append(_line("sb3-contrib", _steps(speed, lambda r: r.peer or np.nan), told))
    product = spread(speed, RATIOS["fisher_product_in_gradients"])
    lines += [
        "",
        f"A Fisher product takes {_bracketed(product, '.2f')} gradients.",
        "",
        "Shares of an iteration of training:",
    ]
    lines += [_line(NAMES.get(phase, phase), f"{share:.0%}", "") for phase, share in speed.shares.items()]
    lines += [f"Conjugate gradient, search and value fit together: {speed.solving:.0%}."]
    if speed.overlapping:
        lines += ["The value fit runs in a thread beside gradient, conjugate gradient and search, so these overlap."]
    return "\n".join(line.rstrip() for line in lines)


def as_line(number: int, each: Round) -> str:
    """One round, while people wait for the others."""
    peer = f", {TO_PEER(each):.1f} times sb3-contrib" if each.peer else ""
    environment, training, vine, population, _ = (ratio(each) for ratio in RATIOS.values())
    others = f"vine sampling {vine:.2f}"
    if each.vine_training:
        others += f", training by vine {each.vine_training / each.ceiling:.2f}"
    shares = f"environment {environment:.2f}, training {training:.2f}, {others} of it"
    of_its_own = f", population {population:.2f} of its own" if each.population else ""
    return f"round {number}: ceiling {each.ceiling:,.0f} steps/s, {shares}{of_its_own}{peer}"


def _line(name: str, figure: str, told: str) -> str:
    return f"  {name:<20}{figure:>16}   {told}"


def _steps(speed: Speed, quantity: Callable[[Round], float]) -> str:
    return f"{spread(speed, quantity).median:,.0f} steps/s"


def _ratio(speed: Speed, name: str) -> str:
    return f"{_bracketed(spread(speed, RATIOS[name]), '.2f')} of the ceiling"


def _bracketed(each: Spread, digits: str) -> str:
    return f"{each.median:{digits}} [{each.low:{digits}}, {each.high:{digits}}]"
