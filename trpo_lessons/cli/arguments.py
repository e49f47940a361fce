"""What the command takes from the shell: times, paths, seeds, shares, settings."""

# Everything slow to import (torch above all) is imported inside the functions, so that --help answers at once.
from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

MOST_SEEDS = 10_000  # in one range


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


TRUST_MODULE = click.option(
    "--trust-module", metavar="NAME", help="The module that a run of gym:NAME:ENV_ID may import; see YOUR_OWN.md."
)
STOP_AFTER = click.option(
    "--stop-after",
    type=Duration(),
    metavar="TIME",
    help="End after TIME (90s, 25m, 1h30m) as Ctrl-C does, also for queues with time limits.",
)


def list_settings(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Where it is `wanted`, print every setting and end."""
    if wanted:
        from trpo_lessons.training.settings.config import described_settings

        formatter = click.HelpFormatter(max_width=100)
        formatter.write_dl(described_settings())
        formatter.write_paragraph()
        formatter.write_text("Presets have other values than these defaults for some tasks and methods.")
        click.echo(formatter.getvalue(), nl=False)
        ctx.exit()


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
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if name == "env_kwargs":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return _parse_number(text)


def _parse_number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
