"""What a person sees of a run while it goes on: the progress bar and TensorBoard."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from trpo_lessons.training.running.run_errors import cannot_write
from trpo_lessons.training.settings.config import TrainConfig

LOG_INTERVAL = 10.0  # seconds between two states of the progress bar where it does not go to a terminal


class Reporter:
    """Shows the rows of a run: a progress bar with return, KL, step length and time left, and TensorBoard events.

    The run goes on after `iteration`, and after `total_steps` simulator steps.
    """

    def __init__(self, folder: Path, config: TrainConfig, iteration: int, total_steps: int, progress: bool) -> None:
        self._events = EventFile(folder, iteration, total_steps)
        self._refused, self._budget, self._most = 0, config.step_budget, config.expected_iterations
        is_terminal = getattr(sys.stderr, "isatty", lambda: False)  # not every program's standard error is a file
        # Not told to be shown, so that TQDM_DISABLE and its like are heard.
        hidden = {} if progress and sys.stderr is not None else {"disable": True}
        self._bar = tqdm(
            total=self._most,
            initial=iteration,
            desc=config.task,
            unit="it",
            mininterval=0.1 if is_terminal() else LOG_INTERVAL,
            **hidden,
        )

    def report(self, row: Mapping[str, Any]) -> None:
        """Show one row. Raises RunError when the disk refuses."""
        scalars = {tag_of(name): x for name, x in row.items() if isinstance(x, int | float) and name != "total_steps"}
        self._events.write(row["total_steps"], scalars)  # total_steps is the axis
        shown = {
            "return": ("mean_return", ".1f"),
            "best": ("best_return", ".1f"),
            "spread": ("population_spread", ".3f"),
            "KL": ("mean_kl", ".4f"),
            "step": ("step_norm", ".3f"),
            "explained variance": ("explained_variance", ".2f"),
        }
        numbers = {name: (row.get(column, math.nan), digits) for name, (column, digits) in shown.items()}
        words = [f"{name} {number:{digits}}" for name, (number, digits) in numbers.items() if math.isfinite(number)]
        self._refused += not row["accepted"]
        words += [f"{self._refused} refused"] * (self._refused > 0)
        if self._budget is not None:  # how many iterations it will last, if they go on like that
            at_this_rate = math.ceil(row["iteration"] * self._budget / row["total_steps"])
            self._bar.total = min(self._most, at_this_rate)
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._events.close()


_GROUPS = {
    "return": ("mean_return", "mean_length", "episodes", "best_return", "elite_return", "population_return"),
    "value": ("explained_variance",),
    "vine": ("branch_steps", "mean_branch_length", "mean_q", "q_spread"),
    "wall_time": ("iteration",),
}


def tag_of(column: str) -> str:
    """A column of progress.csv as TensorBoard shows it, which sorts groups by name: return, update, value, vine,
    wall_time.
    """
    if column.startswith("seconds_"):
        return column.replace("seconds_", "wall_time/seconds_")
    return f"{next((group for group, columns in _GROUPS.items() if column in columns), 'update')}/{column}"


class EventFile:
    """Scalars for TensorBoard, on disk as soon as they are written.

    The usual writers queue events for a background thread, which loses them when the process is killed and prints a
    traceback of its own when the disk is full. The file is named by the iteration it begins after, because TensorBoard
    reads files in the order of their names.
    """

    def __init__(self, folder: Path, iteration: int, total_steps: int) -> None:
        self._path = folder / f"events.out.tfevents.{iteration:010d}"
        try:
            self._file = open(self._path, "wb")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Hides events of iterations that run again, because they had no checkpoint.
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=total_steps + 1, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add one value for each tag at `step`. Raises RunError when the disk refuses."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        try:
            RecordWriter(self._file).write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error
