"""What training by single paths and by vines came to: recorded runs of the class preset, the same seeds for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.compare import ZOO, scores
from trpo_lessons.training.run_folder import RunFolder
from trpo_lessons.viewing.learning_curve import Log, logged
from trpo_lessons.viewing.style import BLUE, ORANGE

FOLDERS = {"single path": ZOO / "class_preset", "vine": ZOO / "class_preset_vine"}
TASKS = ("cartpole", "swimmer", "hopper", "walker")
SEEDS = (0, 1, 2)
LOOKS = {"single path": (BLUE, "-"), "vine": (ORANGE, "--")}


def recorded_logs(task: str) -> dict[str, list[Log]]:
    """By sampling scheme, the log of each seed; see `learning_curve.logged`."""
    return {
        scheme: [_log(RunFolder(path / f"{task}-seed{seed}")) for seed in SEEDS] for scheme, path in FOLDERS.items()
    }


def recorded_scores(task: str) -> dict[str, tuple[float, ...]]:
    """By sampling scheme, what the trained policy of each seed earns: the mean return of 20 deterministic episodes."""
    return {scheme: scores(path, task)[: len(SEEDS)] for scheme, path in FOLDERS.items()}


def draw_curves(figure: Figure, logs: Mapping[str, Mapping[str, Sequence[Log]]]) -> None:
    """Mean return against all simulator steps, those of branches too: a panel for each task, a line for each run.

    logs: by task, then by sampling scheme.
    """
    panels = figure.subplots(1, len(logs), squeeze=False)[0]
    for panel, (task, of_task) in zip(panels, logs.items(), strict=True):
        for scheme, (color, dashes) in LOOKS.items():
            for i, log in enumerate(of_task[scheme]):
                label = "" if i else scheme
                panel.plot(log["total_steps"], log["mean_return"], color=color, ls=dashes, lw=1.4, label=label)
        panel.set(title=task, xlabel="simulator steps", ylim=(0, None))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[0].set_ylabel("return, mean over\nthe latest 100 episodes")
    panels[0].legend(loc="upper left", fontsize=9)


def _log(folder: RunFolder) -> Log:
    return logged(folder, len(folder.rows()))
