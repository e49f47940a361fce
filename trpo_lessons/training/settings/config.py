"""Every setting of a training run, and which of them go together.

A configuration is a frozen dataclass of plain values: it is stored as JSON in the run folder and is all that `resume`
needs to know. Only a function that makes environments cannot be stored, and must be given again.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trpo_lessons.envs import GAMES, TASKS, check_task
from trpo_lessons.envs.adapter import OWN_PREFIX, PREFIX, MakeOne
from trpo_lessons.envs.foreign import OneLine
from trpo_lessons.training.settings.methods import METHODS, NEED_A_PATH, POPULATION_METHODS, SETTINGS_OF
from trpo_lessons.training.settings.rules import LARGEST, RULES, is_too_large, shown

OWN_OPTIONS = (
    "method",
    "sampling",
    "preset",
    "seed",
    "device",
    "iterations",
    "steps_per_iteration",
)  # the others go by --set

_OF_ROBOTS = ("control_cost", "impact_cost")
_OF_GAMES = ("height", "width", "actions", "sticky_actions", "no_op_max", "fire_reset")
_VARIANTS = (*_OF_ROBOTS, *_OF_GAMES, "env_kwargs", "env")


class SettingError(OneLine, ValueError):
    """A setting that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Defaults are the `class` preset of the locomotion tasks.

    Raises SettingError (one line) when a value is out of range, and UnknownTask for a task that there is not.
    """

    task: str
    method: str = "trpo"
    sampling: str = "single-path"
    preset: str = "class"
    seed: int = 0
    device: str = "cpu"  # of updates; methods with populations have none, and stay there
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
    clip: float = 0.2  # of PPO: how far from 1 a ratio pays
    epochs: int = 10  # of PPO: how often an iteration uses each sample
    minibatch_size: int = 64  # of PPO: samples to a step of Adam
    learning_rate: float = 3e-4  # of PPO's Adam
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
            raise SettingError(f"task must be a name, got {shown(self.task)}")
        check_task(self.task)
        for name, rule in RULES.items():
            if not rule.holds(value := getattr(self, name)):
                raise SettingError(f"{name} must be {rule.text}, got {shown(value)}")
            if name != "seed" and is_too_large(value):
                raise SettingError(f"{name} must be at most {LARGEST}, got {shown(value)}")
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
            object.__setattr__(self, "device", "cpu")
            self._check_population()
        elif self.sampling == "vine":
            self._check_vine()
        elif self.steps_per_iteration % self.num_envs:
            raise SettingError(
                f"steps_per_iteration ({self.steps_per_iteration}) must be a multiple of num_envs ({self.num_envs})"
            )

    def _check_method(self) -> None:
        if self.sampling == "vine" and self.method in NEED_A_PATH:
            raise SettingError(f"{self.method} learns from {NEED_A_PATH[self.method]}; use sampling single-path")
        if self.method == "reps" and self.task in GAMES:
            raise SettingError(f"reps needs features of the state, and pictures are none: {self.task} has no reps")
        if self.method == "max-kl" and self.task in GAMES:
            raise SettingError(
                f"max-kl needs a policy of few parameters, and pictures take many: {self.task} has no max-kl"
            )

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
        """How many iterations the run will take; for the vine and for populations the most it can take."""
        if self.step_budget is None or self.method in POPULATION_METHODS:  # nobody knows how long episodes will last
            return self.iterations
        a_step_each = self.vine_states * self.vine_branches if self.sampling == "vine" else 0
        return min(self.iterations, math.ceil(self.step_budget / (self.rows * self.num_envs + a_step_each)))

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
    """Every setting that can be written down, in their order: what it may be, `TrainConfig`'s default, and which
    methods read it where only a few do.
    """
    found = []
    for setting in dataclasses.fields(TrainConfig):
        if setting.name in RULES and setting.name != "env":
            default = "none" if setting.default is None else setting.default
            readers = SETTINGS_OF.get(setting.name, METHODS)
            of = f"; of {', '.join(readers)}" if len(readers) < len(METHODS) - len(POPULATION_METHODS) else ""
            found.append((setting.name, f"{RULES[setting.name].text}; default {default}{of}"))
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
