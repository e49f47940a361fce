"""Single path and vine over the same budget: the returns of recorded runs, one line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.viewing.learning_curve import Log
from trpo_lessons.viewing.style import BLUE, VERMILION, new_figure, style

SCHEMES = {"single-path": (BLUE, "-"), "vine": (VERMILION, "--")}


def sampling_curves(logs: Mapping[str, Mapping[str, Sequence[Log]]]) -> Figure:
    """Mean return against all simulator steps, those of branches too: a panel for each task, a line for each run.

    logs: by task and sampling scheme ("single-path" or "vine"), the logs of all seeds; see `learning_curve.logged`.
    """
    with style():
        figure = new_figure(3.4 * len(logs), 3.2)
        for panel, (task, of_task) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
            for scheme, (color, dashes) in SCHEMES.items():
                for i, log in enumerate(of_task[scheme]):
                    name = scheme.replace("-", " ") if i == 0 else None
                    panel.plot(log["total_steps"], log["mean_return"], color=color, ls=dashes, lw=1.4, label=name)
            panel.set(title=task, xlabel="simulator steps", ylim=(0, None))
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        first = figure.axes[0]
        first.set_ylabel("return, mean over\nthe latest 100 episodes")
        first.legend(loc="lower right", fontsize=9)
    return figure
