"""What a person sees of a run while it goes on: the progress bar and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from trpo_lessons.training.config import TrainConfig


class Reporter:
    """Shows the rows of a run: a progress bar with return, KL, step length and time left, and TensorBoard events."""

    def __init__(self, folder: Path, config: TrainConfig, iteration: int, progress: bool) -> None:
        # Imported here: it takes a second, which nothing but training should pay.
        from torch.utils.tensorboard import SummaryWriter

        done = iteration * config.steps_per_iteration
        # Events of iterations that will be run again are hidden by TensorBoard from purge_step on.
        self._events = SummaryWriter(str(folder), purge_step=done + 1 if iteration else None, flush_secs=30)
        self._bar = tqdm(
            total=config.iterations, initial=iteration, disable=not progress, desc=config.task, unit="it", leave=True
        )

    def report(self, row: Mapping[str, Any]) -> None:
        """Show one row."""
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("iteration", "total_steps"):
                self._events.add_scalar(name.replace("seconds_", "seconds/"), value, row["total_steps"])
        self._bar.set_postfix_str(
            f"return {row['mean_return']:.1f}, KL {row['mean_kl']:.4f}, step {row['step_norm']:.3f}"
            f", explained variance {row['explained_variance']:.2f}" + ("" if row["accepted"] else ", refused"),
            refresh=False,
        )
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._events.close()
