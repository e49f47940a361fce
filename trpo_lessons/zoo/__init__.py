"""The trained policies that come with this package, by name.

    run = zoo.load("hopper")             # or hopper/2, hopper/vine/2; `trpo-lessons zoo` lists them
    action = run.act(obs)                # obs as gymnasium.make("Hopper-v5") returns it
    pi = run.policy(run.theta, run.statistics.normalise(observations))

Their run folders lie beside this file, among other recordings that lessons show.
"""

from __future__ import annotations

from trpo_lessons import training, zoo_names
from trpo_lessons.training import Run, RunError
from trpo_lessons.zoo_names import Entry

__all__ = ["Entry", "Run", "entries", "load"]


def entries() -> tuple[Entry, ...]:
    """All of them, with what each scored. Those whose folder is damaged are left out."""
    return zoo_names.read().entries


def load(name: str) -> Run:
    """The policy of that name, whatever lies in the current folder.

    Raises RunError (one line) where there is none, or where its folder is damaged.
    """
    entry = zoo_names.find(name)
    if entry is None:
        raise RunError(zoo_names.unknown(name))
    return training.load_run(entry.folder)
