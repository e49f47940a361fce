"""What the trained policies that come with this package are called, and what they scored; read without torch.

A name is a task, what is unusual about its training, and a seed: hopper/2, hopper/vine/2. Unusual are the vine, a
method other than TRPO, and a preset other than `class`; a name without its seed is the first seed of that kind. Names
are made from what the recorded runs say of themselves, wherever they lie in the folder `ZOO`.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ZOO = Path(__file__).parent / "zoo"
USUAL = ("single-path", "trpo", "class")
MOST_NEAR = 3  # names that a mistaken one may have meant


@dataclass(frozen=True)
class Entry:
    """A recorded policy.

    steps  simulator steps it was trained for, those of branches too
    score  mean return of whole episodes, undiscounted, of raw rewards; with its `standard_error`, None for one episode
    """

    folder: Path
    task: str
    sampling: str
    method: str
    preset: str
    seed: int
    steps: int
    score: float
    standard_error: float | None

    @property
    def kind(self) -> str:
        """Its name without the seed, such as hopper/vine."""
        own = (self.sampling, self.method, self.preset)
        return "/".join([self.task, *(word for word, usual in zip(own, USUAL, strict=True) if word != usual)])

    @property
    def name(self) -> str:
        """Such as hopper/vine/2."""
        return f"{self.kind}/{self.seed}"

    @property
    def scheme(self) -> str:
        """How it was trained: such as "single path", or "vine, natural-gradient"."""
        sampling = self.sampling.replace("-", " ")
        return ", ".join([sampling, *(each for each in (self.method,) if each != "trpo")])


@dataclass(frozen=True)
class Zoo:
    """All recorded policies in order of their names, and the folders that should hold one and cannot be read."""

    entries: tuple[Entry, ...]
    damaged: tuple[Path, ...]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """Entries by every name they answer to."""
        named: dict[str, Entry] = {}
        for entry in self.entries:  # the first seed of a kind comes first
            named.setdefault(entry.kind, entry)
            named.setdefault(entry.name, entry)
        return named


def read(folder: Path | None = None) -> Zoo:
    """What the zoo holds; `folder` is that of another one."""
    entries, damaged = [], []
    for path in sorted((folder or ZOO).glob("*/*/config.json")):
        try:
            entries.append(_entry(path.parent))
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(path.parent)
    return Zoo(tuple(sorted(entries, key=lambda entry: (entry.kind, entry.seed))), tuple(damaged))


def _entry(folder: Path) -> Entry:
    settings = json.loads((folder / "config.json").read_text())["settings"]
    summary = json.loads((folder / "summary.json").read_text())
    error = summary["standard_error"]
    return Entry(
        folder,
        str(settings["task"]),
        str(settings["sampling"]),
        str(settings.get("method", "trpo")),  # the first recordings are older than other methods
        str(settings["preset"]),
        int(settings["seed"]),
        int(summary["total_steps"]),
        float(summary["mean_return"]),
        None if error is None else float(error),
    )


def find(name: str) -> Entry | None:
    """The policy of that name, if there is one."""
    return read().by_name.get(name)


def unknown(name: str) -> str:
    """What to tell who asks for a name that there is none of: which are near, and how to list all."""
    zoo = read()
    near = difflib.get_close_matches(name.lower(), zoo.by_name, MOST_NEAR)
    told = f"the zoo has no policy {name!r}" + (f"; near it: {', '.join(sorted(near))}" if near else "")
    if zoo.damaged:
        told += f"; {len(zoo.damaged)} of its folders cannot be read, such as {zoo.damaged[0]}"
    return f"{told} (trpo-lessons zoo lists all)"


def seems_meant(text: str) -> bool:
    """Whether what is no name is more likely a slip in one than a path: it begins with a task, or nearly so."""
    tasks = {entry.task for entry in read().entries}
    return bool(difflib.get_close_matches(text.lower().partition("/")[0], tasks, 1))
