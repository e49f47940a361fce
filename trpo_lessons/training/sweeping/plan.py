"""Which runs a sweep consists of, what they are called, and sweep.json, which records what was asked for.

A run is known by its name, and its name by what was asked for: `hopper-trpo-delta=0.01-seed3` is seed 3 of TRPO on the
hopper with delta set to 0.01. A folder holds one run of a name. Whoever asks again for a run that is there means that
one, and whoever asks for another run under the same name is refused.
"""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lessons.envs import UnknownTask, check_task
from trpo_lessons.envs.finding import module_to_run, one_line
from trpo_lessons.training.running.run_errors import RunError, cannot_write
from trpo_lessons.training.running.run_folder import RunFolder, is_recorded, trust_option
from trpo_lessons.training.settings.config import SettingError, TrainConfig
from trpo_lessons.training.settings.methods import METHODS, SETTINGS_OF
from trpo_lessons.training.settings.presets import preset
from trpo_lessons.training.settings.rules import RULES, shown

FORMAT = "trpo-lessons sweep, format 1"
THREADS = 1  # of a run, unless more are asked for: runs share the processors among themselves
NOT_IN_NAMES = ("preset", "device", "iterations", "steps_per_iteration", "step_budget")  # the same for a whole sweep
_OWN_PLACE = ("task", "method", "sampling", "seed")  # in a name
_LISTS = {"task": "tasks", "method": "methods", "seed": "seeds"}  # arguments of `planned` that several runs differ by


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    asked   the task and what was set by hand, as `preset` takes it
    config  what that means; None where it cannot be, and then `flaw` says why, in one line
    """

    asked: Mapping[str, Any]
    config: TrainConfig | None
    flaw: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Planned:
        """The run that was asked for. Raises UnknownTask for a task that there is not."""
        given = {"threads": THREADS, **asked}
        try:
            config = preset(given.pop("task"), given.pop("preset", "class"), **given)
        except SettingError as error:
            return cls(asked, None, one_line(error))
        return cls(asked, config)

    @property
    def group(self) -> str:
        """Its name without the seed: what runs have in common that differ by their seeds alone."""
        words = [self.task, self.method]
        words += ["vine"] * (self.asked.get("sampling") == "vine")
        return _as_name("-".join([*words, self.settings.replace(" ", "-")]).rstrip("-"))

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.group}-seed{self.asked.get('seed', 0)}"

    @property
    def task(self) -> str:
        """Its task."""
        return str(self.asked["task"])

    @property
    def method(self) -> str:
        """Its method."""
        return str(self.asked.get("method", "trpo"))

    @property
    def settings(self) -> str:
        """Settings of its own, as in "delta=0.01 gamma=0.995"."""
        own = {name: value for name, value in self.asked.items() if name not in (*_OWN_PLACE, *NOT_IN_NAMES)}
        return " ".join(f"{name}={_in_a_name(value)}" for name, value in own.items())


def _in_a_name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(_in_a_name, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value).replace('"', "").replace(" ", "")


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text)


def planned(
    tasks: Sequence[str],
    methods: Sequence[str] = ("trpo",),
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> list[Planned]:
    """Every task with every method, every combination of settings, and every seed.

    settings: values by the setting's name. A name such as trpo:delta or hopper:gamma means the runs of that method or
        task alone, in place of what the plain name says. A single value can stand without a list.
    options: settings that all runs have and that are not in their names, of `NOT_IN_NAMES`, and sampling.

    Raises UnknownTask or SettingError (one line) for names that there are not or that are no settings here, for two
    runs under one name, and when there is not one run that can be. Where some cannot be, such as a method that a task
    is too large for, these have a flaw.
    """
    tasks, methods = _listed(tasks), _listed(methods)
    settings = {name: _listed(values) for name, values in (settings or {}).items()}
    for task in tasks:
        check_task(task)
    for name in (*map(_bare, settings), *options):
        _check_name(name)
        if name == "env":
            raise SettingError("a sweep cannot store env; register the environment, and name it gym:MODULE:ENV_ID")
    _refuse_in_a_wrong_place(settings, options)
    for given, values in settings.items():
        _check_values(given, values)
    for scope in filter(None, map(_scope, settings)):
        if scope not in (*tasks, *methods):
            raise SettingError(
                f"there is no run of {scope!r} in this sweep: settings of some runs are TASK:NAME=VALUE or "
                "METHOD:NAME=VALUE, of tasks and methods that it has"
            )
    runs: dict[str, Planned] = {}
    for task, method in itertools.product(tasks, methods):
        own = _settings_for(settings, task, method)
        for values, seed in itertools.product(itertools.product(*own.values()), seeds):
            asked = {"task": task, "method": method, **options, **dict(zip(own, values, strict=True)), "seed": seed}
            asked = {name: value.item() if isinstance(value, np.generic) else value for name, value in asked.items()}
            run = Planned.of(asked)
            if (other := runs.setdefault(run.name, run)) != run and (not run.config or other.config != run.config):
                raise SettingError(
                    f"two runs of this sweep would be {run.name} ({_differing(other, run)}); leave one out"
                )
    found = list(runs.values())
    if not found:
        raise SettingError("there are no runs in this sweep: name a task, a method and a seed at least")
    if all(run.config is None for run in found):
        raise SettingError(found[0].flaw)
    return found


def _listed(values: Any) -> Sequence[Any]:
    """What stands alone, as a list of one."""
    return [values] if isinstance(values, str | int | float | None | dict) else list(values)


def _scope(name: str) -> str:
    return name.rpartition(":")[0]


def _bare(name: str) -> str:
    return name.rpartition(":")[2]


def _check_name(name: str) -> None:
    """Raises SettingError for what is no setting, before it is a flaw of every single run."""
    if name not in {each.name for each in dataclasses.fields(TrainConfig)}:
        TrainConfig.from_json({name: None})


def _check_values(given: str, values: Sequence[Any]) -> None:
    """Raises SettingError for a value that the setting `given` cannot have in any run, and where the method that is
    named before it has no such setting.
    """
    method, name = _scope(given), _bare(given)
    if method in METHODS and method not in SETTINGS_OF.get(name, METHODS):
        raise SettingError(f"{method} has no {name}; methods that have it: {', '.join(SETTINGS_OF[name])}")
    for value in values:
        if name in RULES and not RULES[name].holds(value):
            raise SettingError(f"{given} must be {RULES[name].text}, got {shown(value)}")


def _refuse_in_a_wrong_place(settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises SettingError for what would be ignored, or give runs that differ one name."""
    for given in (*settings, *options):
        if (name := _bare(given)) in _LISTS:
            raise SettingError(f"{given} is no setting of a sweep: use the argument {_LISTS[name]} for it")
    for given in settings:
        if (name := _bare(given)) in NOT_IN_NAMES:
            raise SettingError(f"{given} must be the same in all runs of a sweep: use the argument {name} for it")


def _settings_for(settings: Mapping[str, Sequence[Any]], task: str, method: str) -> dict[str, Sequence[Any]]:
    found = {name: values for name, values in settings.items() if not _scope(name)}
    for scope in (method, task):
        found |= {_bare(name): values for name, values in settings.items() if _scope(name) == scope}
    return found


def share(runs: Sequence[Planned], number: int, shares: int) -> list[Planned]:
    """The runs of share `number` of 1 to `shares`. Which they are does not depend on what has been done already."""
    return list(runs[number - 1 :: shares])


def record(out: Path, runs: Sequence[Planned]) -> None:
    """Add those of `runs` that can be to sweep.json in the folder `out`, which is made if need be. What is there
    already is left.

    Raises RunError (one line) when a name stands for another run there, or when the folder cannot be used.
    """
    _check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create {out} ({error.strerror}); choose another folder") from error
    with _to_myself(out):
        there = _read(out) if _file(out).exists() else {}
        for run in runs:
            if run.name in there:
                _refuse_conflict(out / run.name, there[run.name], run)
            refuse_another(out / run.name, run)
        wanted = there | {run.name: dict(run.asked) for run in runs if run.config}
        if wanted != there:
            _write(_file(out), json.dumps({"format": FORMAT, "runs": wanted}, indent=2) + "\n")


def recorded(out: Path, trusted: Sequence[str] = ()) -> list[Planned]:
    """The runs that sweep.json in `out` asks for.

    trusted: modules that may be run for tasks gym:MODULE:ENV_ID; see `load_run`.

    Raises RunError (one line) when there is no sweep, or when it needs a module that is not trusted.
    """
    asked = _read(out)
    for each in asked.values():
        module = module_to_run(str(each.get("task")))
        if module and module not in trusted:
            raise RunError(
                f"{out} would run the Python module {module!r}, which its sweep.json names; if you trust that module, "
                f'add {trust_option(str(each["task"]))} (trust_modules=["{module}"] in Python)'
            )
    try:
        return [Planned.of(each) for each in asked.values()]
    except UnknownTask as error:
        raise RunError(f"{_file(out)}: {one_line(error)} (was it written by another version?)") from error


def _refuse_conflict(path: Path, asked: Mapping[str, Any], run: Planned) -> None:
    # The task of a recorded run may name a module, which must not run: only one that was asked for now is looked at.
    other = Planned.of(asked) if asked["task"] == run.task else Planned(asked, None)
    if asked["task"] != run.task or (other.config and run.config and other.config != run.config):
        raise _conflict(path, other, run)


def refuse_another(path: Path, run: Planned) -> None:
    """Raise RunError (one line) when the folder `path` holds a run with other settings."""
    if run.config is None or not (path / "config.json").exists():
        return
    stored, _ = RunFolder(path).config()
    if stored != run.config:
        raise _conflict(path, Planned(stored.to_json(), stored), run)


def _conflict(path: Path, there: Planned, wanted: Planned) -> RunError:
    return RunError(f"{path} is there with other settings ({_differing(there, wanted)}); choose another folder")


def _differing(there: Planned, wanted: Planned) -> str:
    both = there.config and wanted.config
    one, two = (run.config.to_json() if both and run.config else dict(run.asked) for run in (there, wanted))
    return "; ".join(f"{name} {one.get(name)}, here {two.get(name)}" for name in two if one.get(name) != two.get(name))


def _file(out: Path) -> Path:
    return out / "sweep.json"


def _check_folder(out: Path) -> None:
    if is_recorded(out):
        raise RunError(f"{out} is part of this package; choose another folder")
    if (out / "config.json").exists():
        raise RunError(f"{out} holds a single run; choose another folder")


def _read(out: Path) -> dict[str, dict[str, Any]]:
    path = _file(out)
    try:
        text = json.loads(path.read_text(encoding="utf-8-sig"))
        if text["format"] != FORMAT:
            raise ValueError(f"its format is {text['format']!r}, not {FORMAT!r}")
        return {str(name): {"task": each["task"], **each} for name, each in text["runs"].items()}
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{out} holds no sweep (no sweep.json); say what it is to consist of: --task NAME") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise RunError(f"{path} is damaged ({one_line(error)}); give the whole command in another folder") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


@contextmanager
def _to_myself(out: Path) -> Iterator[None]:
    """Wait until nobody else changes sweep.json."""
    handle = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks; shares of one sweep write the same
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
