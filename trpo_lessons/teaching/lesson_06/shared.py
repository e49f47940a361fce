"""What the exercises share in lesson 06, Single path."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks.properties import normal

TOLERANCE = 1e-6


def whole_numbers(rng: Generator, *shape: int) -> Tensor:
    """Integers from 0 to 2."""
    return torch.from_numpy(rng.integers(0, 3, size=shape))


def close(one: Any, other: Any) -> bool:
    """Equal up to the rounding of float32, which a number times a bool tensor brings in unasked."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=TOLERANCE, atol=TOLERANCE))


ROWS = 12
LONG, WITHOUT_AN_END = 2000, 350  # rows: 0.7 and 0.1 to such a power are 0 on a computer


class Record(NamedTuple):
    """What is handed to `returns`: columns [T] or [T, E], and gamma."""

    rewards: Tensor
    next_values: Tensor
    over: Tensor  # terminated
    cut: Tensor  # truncated
    gamma: float

    @property
    def ended(self) -> Tensor:
        """Where the episode does not go on."""
        return self.over | self.cut

    @property
    def worth_after(self) -> Tensor:
        """What stands in the place of the future where an episode ended: nothing, or a value where it was cut."""
        return torch.where(self.over, 0.0, self.next_values)


def record(rng: Generator) -> Record:
    """Twelve steps of one environment: rewards, next values, two kinds of ends, gamma. The last episode goes on.

    One step is the last of its episode for both reasons at once, as when a pole falls in the very step of the limit.
    """
    terminated, truncated = torch.zeros(2, ROWS, dtype=torch.bool)
    over, cut, both = (int(t) for t in rng.permutation(ROWS - 1)[:3])
    terminated[[over, both]] = True
    truncated[[cut, both]] = True
    return Record(normal(rng, ROWS), normal(rng, ROWS), terminated, truncated, float(rng.uniform(0.6, 0.95)))


def first(flags: Tensor) -> int:
    """Where the first True is."""
    return int(flags.int().argmax())


Ends = tuple[bool, bool]  # terminated, truncated
WAYS_TO_END: tuple[Ends, ...] = ((True, False), (True, True), (False, True))


def the_last_one_everywhere(found: Tensor) -> Tensor:
    """What a list [T, ...] holds to which one tensor was appended T times: the row that was worked out last."""
    return found[:1].expand_as(found).clone()


def one_row_up(flags: Tensor) -> Tensor:
    """What stands in the next row, [T] or [T, E]; nothing in the last."""
    return torch.cat([flags[1:], torch.zeros_like(flags[:1])])
