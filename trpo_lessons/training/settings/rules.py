"""What each setting may be by itself; `config` says what suits what.

Every rule has its words, for refusals and for `trpo-lessons train --list-settings`.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trpo_lessons.training.settings.methods import METHODS

LARGEST = 2**31 - 1  # of whole numbers; only seeds go beyond


@dataclass(frozen=True)
class Rule:
    """What a setting may be: in words, and whether it holds for a value."""

    text: str
    holds: Callable[[Any], bool]


def _number(low: float, high: float, text: str, *, whole: bool = False) -> Rule:
    def holds(value: object) -> bool:
        kinds = (int,) if whole else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and (isinstance(value, int) or math.isfinite(value))  # not every whole number can become a float
            and low <= value <= high
        )

    return Rule(text, holds)


def _count(low: int = 1) -> Rule:
    return _number(low, math.inf, f"a whole number, at least {low}", whole=True)


def _or_none(rule: Rule) -> Rule:
    return Rule(f"{rule.text}, or none", lambda value: value is None or rule.holds(value))


def _are_widths(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_count().holds(width) for width in value)


_WIDTHS = Rule("a sequence of layer widths, each at least 1", _are_widths)
_YES_OR_NO = Rule("true or false", lambda value: isinstance(value, bool))
_ACTIONS = Rule("joystick, legal or minimal", lambda value: value in ("joystick", "legal", "minimal"))


def _are_keyword_arguments(value: Any) -> bool:
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


_TINY = 1e-12
RULES = {
    "preset": Rule("smoke, class or paper", lambda v: v in ("smoke", "class", "paper")),
    "method": Rule(", ".join(METHODS), lambda v: v in METHODS),
    "sampling": Rule("single-path or vine", lambda v: v in ("single-path", "vine")),
    "device": Rule("cpu or cuda", lambda v: v in ("cpu", "cuda")),
    "seed": _number(0, 2**63 - 1, "a whole number from 0 to 2**63 - 1", whole=True),
    "threads": _count(),
    "iterations": _count(),
    "step_budget": _or_none(_count()),
    "steps_per_iteration": _count(),
    "num_envs": _count(),
    "vine_states": _count(),
    "vine_branches": _count(2),  # what a single action is worth tells nothing: differences count
    "rollout_length": _count(),
    "first_actions": Rule("uniform or policy", lambda v: v in ("uniform", "policy")),
    "control_cost": _or_none(_number(0, 1e6, "a number from 0 to 1e6")),
    "impact_cost": _or_none(_number(0, 1e6, "a number from 0 to 1e6")),
    "height": _or_none(_number(10, 210, "a whole number from 10 to 210", whole=True)),
    "width": _or_none(_number(10, 160, "a whole number from 10 to 160", whole=True)),
    "actions": _or_none(_ACTIONS),
    "sticky_actions": _or_none(_number(0, 1 - _TINY, "at least 0 and below 1")),
    "no_op_max": _or_none(_number(1, 1000, "a whole number from 1 to 1000", whole=True)),
    "fire_reset": _or_none(_YES_OR_NO),
    "env_kwargs": _or_none(Rule('keyword arguments as JSON has them, as in {"slope": 0.5}', _are_keyword_arguments)),
    "env": _or_none(Rule("a class or function that makes an environment", callable)),
    "life_loss_ends": _YES_OR_NO,
    "normalise_obs": _YES_OR_NO,
    "hidden": _WIDTHS,
    "value_hidden": _WIDTHS,
    "initial_log_std": _number(-10, 5, "between -10 and 5"),
    "gamma": _number(0, 1 - _TINY, "at least 0 and below 1"),
    "lam": _number(0, 1, "between 0 and 1"),
    "value_steps": _count(),
    "value_damping": _number(0, 1e3, "between 0 and 1000"),
    "value_stride": _count(),
    "delta": _number(_TINY, 10, "above 0, at most 10"),
    "damping": _number(0, 1e3, "between 0 and 1000"),
    "cg_iterations": _count(),
    "fisher_stride": _count(),
    "shrink": _number(_TINY, 1 - _TINY, "strictly between 0 and 1"),
    "max_backtracks": _count(0),
    "penalty": _number(_TINY, 1e6, "above 0, at most 1e6"),
    "temperature": _number(1e-3, 1e6, "from 0.001 to 1e6"),
    "largest_weight": _number(1, 1e12, "from 1 to 1e12"),
    "epsilon": _number(_TINY, 10, "above 0, at most 10"),
    "reps_constraint": Rule("visited or flow", lambda v: v in ("visited", "flow")),
    "fit_iterations": _count(),
    "clip": _number(_TINY, 1 - _TINY, "strictly between 0 and 1"),
    "epochs": _count(),
    "minibatch_size": _count(),
    "learning_rate": _number(_TINY, 10, "above 0, at most 10"),
    "chunk_size": _or_none(_count()),
    "population": _count(4),
    "episodes": _count(),
    "elite_share": _number(_TINY, 1, "above 0, at most 1"),
    "initial_std": _number(_TINY, 1e3, "above 0, at most 1000"),
    "extra_noise": _number(0, 1e6, "a number from 0 to 1e6"),
    "noise_generations": _count(),
}


def is_too_large(value: Any) -> bool:
    """Whether a whole number in it is beyond LARGEST."""
    return any(isinstance(each, int) and each > LARGEST for each in (value if isinstance(value, tuple) else [value]))


def shown(value: Any) -> str:
    """A value in one short line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
