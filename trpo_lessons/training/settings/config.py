"""Every setting of a training run, and the presets.

A configuration is a frozen dataclass of plain values: it is stored as JSON in the run folder and is all that `resume`
needs to know. Only a function that makes environments cannot be stored, and must be given again.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trpo_lessons.envs import GAMES, TASKS, check_task
from trpo_lessons.envs.adapter import OWN_PREFIX, PREFIX, MakeOne
from trpo_lessons.envs.foreign import OneLine

OWN_OPTIONS = (
    "method",
    "sampling",
    "preset",
    "seed",
    "device",
    "iterations",
    "steps_per_iteration",
)  # the others go by --set

LARGEST = 2**31 - 1  # of whole numbers; only seeds go beyond


class SettingError(OneLine, ValueError):
    """A setting that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Defaults are the `class` preset of the locomotion tasks.

    Raises SettingError (one line) when a value is out of range.
    """

    task: str
    method: str = "trpo"
    sampling: str = "single-path"
    preset: str = "class"
    seed: int = 0
    device: str = "cpu"
    threads: int = 2  # of torch and of the simulator; part of what makes two runs equal to the bit

    iterations: int = 244
    step_budget: int | None = None  # ends the run with the iteration in which it has taken so many simulator steps
    steps_per_iteration: int = 4096  # simulator steps, over all environments; for the vine the most it can take
    num_envs: int = 32

    # Of the vine alone: every branch can take rollout_length steps, and the trunk gets what they leave of the budget.
    vine_states: int = 64  # how many states of the trunk have branches
    vine_branches: int = 4  # in each of them; as many as a task has discrete actions means each action once
    rollout_length: int = 10
    first_actions: str = "uniform"  # or policy: where discrete ones are drawn from; continuous ones are the policy's

    # Variants of the task; None leaves its own. The reward:
    control_cost: float | None = None  # of the robots, for each unit of |action|²; the paper has 1e-5
    impact_cost: float | None = None  # of the walker's feet; see envs.mujoco
    # Games; see envs.atari.settings.
    height: int | None = None  # of a frame, in pixels
    width: int | None = None
    actions: str | None = None
    sticky_actions: float | None = None
    no_op_max: int | None = None
    fire_reset: bool | None = None

    # Of gym: and own: tasks, keyword arguments of the environment; plain values, as JSON has them.
    env_kwargs: dict[str, Any] | None = None
    # Of own: tasks, what makes one new environment at every call. Not stored.
    env: MakeOne | None = field(default=None, repr=False, compare=False)

    life_loss_ends: bool = False  # of games: returns end where a life is lost; the game goes on

    normalise_obs: bool = True  # running statistics of observations; without, games show bytes divided by 255
    hidden: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0

    gamma: float = 0.99
    lam: float = 0.95
    value_hidden: tuple[int, ...] = (64, 64)  # () means no value function: Monte Carlo returns, as in the paper
    value_steps: int = 2  # Gauss-Newton steps in an iteration
    value_damping: float = 0.01
    value_stride: int = 4

    delta: float = 0.01
    damping: float = 0.1
    cg_iterations: int = 10
    fisher_stride: int = 4
    shrink: float = 0.8
    max_backtracks: int = 15
    penalty: float = 1.0  # of the natural gradient: lambda in equation 18
    temperature: float = 1.0  # of RWR, in standard deviations of the advantages
    largest_weight: float = 20.0  # of RWR: where an action that is as good as the policy has weight 1
    epsilon: float = 0.25  # of REPS, in nats: how far the weighted samples may be from those that were drawn
    reps_constraint: str = "visited"  # or flow: what REPS' weights may not change, see prior_methods.reps
    fit_iterations: int = 20  # of RWR and REPS: how many iterations of L-BFGS fit the policy to weighted samples
    chunk_size: int | None = None

    # Of the methods that search with populations (cem, cma). One generation is an iteration.
    population: int = 32  # how many thetas are drawn and played
    episodes: int = 1  # that each of them plays
    elite_share: float = 0.2  # of cem: how much of the population the next one is fitted to
    initial_std: float = 0.5  # of every parameter that is searched for
    extra_noise: float = 0.0  # of cem: added to the variance after the first generation, less after each of the next
    noise_generations: int = 50  # of cem: after so many nothing is added

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if each.name != "env":
                object.__setattr__(self, each.name, _plain(getattr(self, each.name)))
        if not isinstance(self.task, str):
            raise SettingError(f"task must be a name, got {_shown(self.task)}")
        check_task(self.task)
        for name, rule in _RULES.items():
            if not rule.holds(value := getattr(self, name)):
                raise SettingError(f"{name} must be {rule.text}, got {_shown(value)}")
            if name != "seed" and _is_too_large(value):
                raise SettingError(f"{name} must be at most {LARGEST}, got {_shown(value)}")
        if self.env is not None and not self.task.startswith(OWN_PREFIX):
            raise SettingError(f"env is for tasks named {OWN_PREFIX}NAME, not for {self.task}")
        if self.env_kwargs is not None and self.task in TASKS:
            raise SettingError(f"{self.task} has no env_kwargs: they are for {PREFIX} and {OWN_PREFIX} tasks")
        for name in self.task_settings.keys() - {"env", "env_kwargs"}:
            able = [task for task, facts in TASKS.items() if name in facts.settings]
            if self.task not in able:
                raise SettingError(f"{self.task} has no {name}; tasks that have it: {', '.join(able)}")
        if self.life_loss_ends and self.task not in GAMES:
            raise SettingError(f"{self.task} has no lives to lose: life_loss_ends is for games")
        self._check_method()
        if self.method in POPULATION_METHODS:
            self._check_population()
        elif self.sampling == "vine":
            self._check_vine()
        elif self.steps_per_iteration % self.num_envs:
            raise SettingError(
                f"steps_per_iteration ({self.steps_per_iteration}) must be a multiple of num_envs ({self.num_envs})"
            )

    def _check_method(self) -> None:
        if self.sampling == "vine" and self.method in _NEED_A_PATH:
            raise SettingError(f"{self.method} learns from {_NEED_A_PATH[self.method]}; use sampling single-path")
        if self.method == "reps" and self.task in GAMES:
            raise SettingError(f"reps needs features of the state, and pictures are none: {self.task} has no reps")

    def _check_population(self) -> None:
        if self.sampling == "vine":
            raise SettingError(f"{self.method} plays whole episodes, and has no vine; use sampling single-path")
        if self.task in GAMES:
            raise SettingError(
                f"{self.method} cannot find the {self.task} policy's parameters: for pictures it has tens of thousands"
            )
        if self.task not in TASKS:
            raise SettingError(
                f"{self.task} cannot go back to an earlier state, which {self.method} needs: a whole population begins "
                "in the same one"
            )

    def _check_vine(self) -> None:
        if self.task not in TASKS:
            raise SettingError(
                f"{self.task} cannot go back to an earlier state, which the vine needs; use sampling single-path"
            )
        trunk = self.steps_per_iteration - self.branch_steps
        if trunk < self.vine_states or trunk % self.num_envs:
            raise SettingError(
                f"steps_per_iteration ({self.steps_per_iteration}) leaves {max(trunk, 0)} steps for the trunk, after "
                f"{self.branch_steps} for the branches (vine_states {self.vine_states} x vine_branches "
                f"{self.vine_branches} x rollout_length {self.rollout_length}); the trunk needs a multiple of num_envs "
                f"({self.num_envs}) and at least vine_states"
            )

    @property
    def branch_steps(self) -> int:
        """The most simulator steps that the branches of one iteration take; 0 on a single path.

        Branches whose episode ends early take fewer, so most iterations take less.
        """
        return self.vine_states * self.vine_branches * self.rollout_length if self.sampling == "vine" else 0

    @property
    def rows(self) -> int:
        """Steps of each environment in one iteration, branches aside."""
        return (self.steps_per_iteration - self.branch_steps) // self.num_envs

    @property
    def total_steps(self) -> int:
        """Simulator steps of the whole run; for the vine the most it can take. Not of populations: theirs depend on
        how long episodes last.
        """
        return self.iterations * self.steps_per_iteration

    @property
    def expected_iterations(self) -> int:
        """How many iterations the run will take, if each of them takes all the steps that it can; at most."""
        if self.step_budget is None or self.method in POPULATION_METHODS:  # nobody knows how long episodes will last
            return self.iterations
        return min(self.iterations, math.ceil(self.step_budget / self.steps_per_iteration))

    def is_complete(self, iteration: int, total_steps: int) -> bool:
        """Whether a run that has done so much is at its end: no iterations are left, or no steps of its budget."""
        return iteration >= self.iterations or (self.step_budget is not None and total_steps >= self.step_budget)

    @property
    def task_settings(self) -> dict[str, Any]:
        """What `envs.make` has to know beyond the task's name: the variants that are asked for."""
        return {name: getattr(self, name) for name in _VARIANTS if getattr(self, name) is not None}

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, `env` aside."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "env"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_json`. Raises SettingError for settings this version does not know."""
        known = [f.name for f in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            closest = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {closest[0]!r}?" if closest else f"settings: {', '.join(known)}"
            raise SettingError(f"there is no setting {unknown[0]!r}; {hint}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


def described_settings() -> list[tuple[str, str]]:
    """Every setting with what it may be and its default, in their order."""
    found = []
    for setting in dataclasses.fields(TrainConfig):
        if setting.name in _RULES:
            default = setting.default
            found.append(
                (setting.name, f"{_RULES[setting.name].text}; default {'none' if default is None else default}")
            )
    return found


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's; a list within a setting stays a list. What is too deep stays as it is."""
    if isinstance(value, np.ndarray) and value.ndim:
        return tuple(value.tolist())
    if isinstance(value, np.generic | np.ndarray):
        return value.item()
    try:
        if isinstance(value, dict):
            return {name: _plain(each) for name, each in value.items()}
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    except RecursionError:
        return value


def _is_too_large(value: Any) -> bool:
    return any(isinstance(each, int) and each > LARGEST for each in (value if isinstance(value, tuple) else [value]))


def _shown(value: Any) -> str:
    """A value in one short line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"


@dataclass(frozen=True)
class _Rule:
    text: str
    holds: Callable[[Any], bool]


def _number(low: float, high: float, text: str, *, whole: bool = False) -> _Rule:
    def holds(value: object) -> bool:
        kinds = (int,) if whole else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and (isinstance(value, int) or math.isfinite(value))  # not every whole number can become a float
            and low <= value <= high
        )

    return _Rule(text, holds)


def _count(low: int = 1) -> _Rule:
    return _number(low, math.inf, f"a whole number, at least {low}", whole=True)


def _or_none(rule: _Rule) -> _Rule:
    return _Rule(f"{rule.text}, or none", lambda value: value is None or rule.holds(value))


def _are_widths(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_count().holds(width) for width in value)


_WIDTHS = _Rule("a sequence of layer widths, each at least 1", _are_widths)
_YES_OR_NO = _Rule("true or false", lambda value: isinstance(value, bool))
_ACTIONS = _Rule("joystick, legal or minimal", lambda value: value in ("joystick", "legal", "minimal"))
_OF_ROBOTS = ("control_cost", "impact_cost")
_OF_GAMES = ("height", "width", "actions", "sticky_actions", "no_op_max", "fire_reset")
_WITH_FISHER = ("trpo", "natural-gradient", "empirical-fim")
_SEARCHING = ("trpo", "empirical-fim", "max-kl")
_FITTED = ("rwr", "reps")
POPULATION_METHODS = ("cem", "cma")
"""Methods that search for theta with populations of policies, and see neither steps nor gradients."""
METHODS = (*_WITH_FISHER, "max-kl", *_FITTED, *POPULATION_METHODS)
"""Every method, by the names that people give them."""
SETTINGS_OF: dict[str, tuple[str, ...]] = {
    "delta": _SEARCHING,
    "damping": (*_WITH_FISHER, "max-kl"),
    "cg_iterations": _WITH_FISHER,
    "fisher_stride": _WITH_FISHER,
    "shrink": _SEARCHING,
    "max_backtracks": _SEARCHING,
    "penalty": ("natural-gradient",),
    "temperature": ("rwr",),
    "largest_weight": ("rwr",),
    "epsilon": ("reps",),
    "reps_constraint": ("reps",),
    "fit_iterations": _FITTED,
}
"""Which methods read a setting; those that are not listed belong to all."""
_OF_UPDATES = (
    *("steps_per_iteration", "gamma", "lam", "value_hidden", "value_steps", "value_damping", "value_stride"),
    *("chunk_size", "life_loss_ends"),
)
SETTINGS_OF |= dict.fromkeys(_OF_UPDATES, tuple(name for name in METHODS if name not in POPULATION_METHODS))
SETTINGS_OF |= dict.fromkeys(("population", "episodes", "initial_std"), POPULATION_METHODS)
SETTINGS_OF |= dict.fromkeys(("elite_share", "extra_noise", "noise_generations"), ("cem",))
_NEED_A_PATH = {
    "empirical-fim": "the actions taken in every state, and a vine's trunk has none",
    "rwr": "one weighted action in every state, and a vine has several",
    "reps": "one weighted action in every state, and a vine has several",
}
_VARIANTS = (*_OF_ROBOTS, *_OF_GAMES, "env_kwargs", "env")


def _are_keyword_arguments(value: Any) -> bool:
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


_TINY = 1e-12
_RULES = {
    "preset": _Rule("smoke, class or paper", lambda v: v in ("smoke", "class", "paper")),
    "method": _Rule(", ".join(METHODS), lambda v: v in METHODS),
    "sampling": _Rule("single-path or vine", lambda v: v in ("single-path", "vine")),
    "device": _Rule("cpu or cuda", lambda v: v in ("cpu", "cuda")),
    "seed": _number(0, 2**63 - 1, "a whole number from 0 to 2**63 - 1", whole=True),
    "threads": _count(),
    "iterations": _count(),
    "step_budget": _or_none(_count()),
    "steps_per_iteration": _count(),
    "num_envs": _count(),
    "vine_states": _count(),
    "vine_branches": _count(2),  # what a single action is worth tells nothing: differences count
    "rollout_length": _count(),
    "first_actions": _Rule("uniform or policy", lambda v: v in ("uniform", "policy")),
    "control_cost": _or_none(_number(0, 1e6, "a number from 0 to 1e6")),
    "impact_cost": _or_none(_number(0, 1e6, "a number from 0 to 1e6")),
    "height": _or_none(_number(10, 210, "a whole number from 10 to 210", whole=True)),
    "width": _or_none(_number(10, 160, "a whole number from 10 to 160", whole=True)),
    "actions": _or_none(_ACTIONS),
    "sticky_actions": _or_none(_number(0, 1 - _TINY, "at least 0 and below 1")),
    "no_op_max": _or_none(_number(1, 1000, "a whole number from 1 to 1000", whole=True)),
    "fire_reset": _or_none(_YES_OR_NO),
    "env_kwargs": _or_none(_Rule('keyword arguments as JSON has them, as in {"slope": 0.5}', _are_keyword_arguments)),
    "env": _or_none(_Rule("a class or function that makes an environment", callable)),
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
    "reps_constraint": _Rule("visited or flow", lambda v: v in ("visited", "flow")),
    "fit_iterations": _count(),
    "chunk_size": _or_none(_count()),
    "population": _count(4),
    "episodes": _count(),
    "elite_share": _number(_TINY, 1, "above 0, at most 1"),
    "initial_std": _number(_TINY, 1e3, "above 0, at most 1000"),
    "extra_noise": _number(0, 1e6, "a number from 0 to 1e6"),
    "noise_generations": _count(),
}
