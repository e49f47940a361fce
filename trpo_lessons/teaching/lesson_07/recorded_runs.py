"""What lesson 07 shows from recordings: training by single paths and by vines, and how noisy their gradients are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.compare import ZOO, scores
from trpo_lessons.bench.gradient_variance import recorded
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.learning_curve import Log, logged
from trpo_lessons.viewing.style import BLACK, BLUE, ORANGE

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


@dataclass(frozen=True)
class Race:
    """When the mean return of the latest 100 episodes first reached `level`: simulator steps by seed, inf for never."""

    level: int
    steps: Mapping[str, tuple[float, ...]]

    @property
    def times(self) -> float:
        """How many times as many steps the vines took, median of the seeds against median; inf where most never came,
        and nan where most single paths did not."""
        path, vine = (float(np.median(self.steps[scheme])) for scheme in FOLDERS)
        return vine / path if math.isfinite(path) else math.nan


def race(of_task: Mapping[str, Sequence[Log]]) -> Race:
    """To half of what single paths earn on average in the end, in two digits."""
    level = int(float(f"{np.mean([log['mean_return'][-1] for log in of_task['single path']]) / 2:.2g}"))

    def first(log: Log) -> float:
        there = log["mean_return"] >= level
        return float(log["total_steps"][there.argmax()]) if there.any() else math.inf

    return Race(level, {scheme: tuple(first(log) for log in of_task[scheme]) for scheme in FOLDERS})


def race_line(task: str, found: Race) -> str:
    """Such as "hopper: 1600 after 200k, 210k, 250k steps; vine 500k, 420k, never: 2.4 times as many"."""

    def listed(scheme: str) -> str:
        return ", ".join("never" if math.isinf(n) else f"{n / 1000:.0f}k" for n in found.steps[scheme])

    times = f": {found.times:.1f} times as many" if math.isfinite(found.times) else ""
    return f"{task}: {found.level} after {listed('single path')} steps; vine {listed('vine')}{times}"


# ---- section 6: how noisy gradients are ------------------------------------------------------------------------------

TITLES = {"cartpole": "cart-pole, 50 steps", "hopper": "Hopper, 100 steps", "hopping": "Hopper that hops"}
MOST = 1e7  # steps; beyond that a measurement of 60 batches says nothing but "many"


def short_name(name: str) -> str:
    """What an estimator of the recording is called in the lesson's picture and table."""
    name = name.removeprefix("vine: ").replace("single path: ", "path, ").replace("their mean", "mean")
    name = name.replace(", V at the cut", " + V").replace(", own random numbers", ", own")
    return name if name.startswith("path") else f"vine, {name}"


def draw_gradients(figure: Figure) -> None:
    """A mark and a 95 % interval for every estimator of the recording, on logarithmic scales of simulator steps."""
    for axes, (task, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        rows = recorded(task)["estimators"]
        for i, (name, row) in enumerate(rows.items()):
            color, mark = (BLUE, "o") if "path" in name else (ORANGE, "s")
            found = row["natural"]
            axes.plot(np.minimum(found["interval"], MOST), (i, i), "-", color=color, lw=3, solid_capstyle="butt")
            face = "white" if "own" in name else color
            axes.plot(found["steps"], i, mark, markersize=8, markerfacecolor=face, markeredgecolor=BLACK)
        axes.set_yticks(range(len(rows)), map(short_name, rows), fontsize=9)
        axes.invert_yaxis()
        axes.set(xscale="log", title=title, xlabel="steps until signal = noise")
        axes.grid(visible=False, axis="y")


def gradient_table(task: str) -> str:
    """Every estimator of the recording: steps until signal = noise, and the cosine to the true gradient; 95 %."""
    kept = recorded(task)
    lines = [f"{TITLES[task]}: {kept['batches']} batches of {kept['batch_steps']} steps each"]
    lines += [f"{'thousand steps until signal = noise, 95 %':>56}{'cosine, 95 %':>18}"]
    for name, row in kept["estimators"].items():
        found = row["natural"]
        steps = "".join(f"{_in_thousands(n):>8}" for n in (found["steps"], *found["interval"]))
        cosine = "".join(f"{x:6.2f}" for x in (found["aligned"], *found["aligned_interval"]))
        lines.append(f"  {short_name(name):30}{steps}{cosine}")
    return "\n".join(lines)


def _in_thousands(steps: float) -> str:
    # Two digits are plenty: the intervals are wider.
    if steps > MOST:
        return f"> {MOST / 1000:.0f}"
    return f"{steps / 1000:#.2g}" if steps < 10_000 else f"{float(f'{steps:.2g}') / 1000:.0f}"


def _log(folder: RunFolder) -> Log:
    return logged(folder, len(folder.rows()))
