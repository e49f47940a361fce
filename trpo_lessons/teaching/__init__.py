"""What a lesson is made of: explorers (sliders), checks for exercises, their solutions, and grading.

Imported by notebooks only. `checks` and `explorers` are the machinery. What belongs to one lesson is in a folder of its
own: ``lesson_03`` has its ``explorers``, a module for each exercise (inputs, properties and mistakes together), and
``check``, which gathers the exercises under the name that the notebook uses. Solutions are apart, in
``solutions.lesson_03``, which no notebook imports.
"""

from __future__ import annotations

import torch

__all__ = ["start", "verdict"]


def start(threads: int = 2) -> None:
    """Call it first in every lesson: fixes the number of threads, on which the last bits of sums depend."""
    torch.set_num_threads(threads)


def verdict(claim: str, holds: object) -> None:
    """Print ``claim: yes``, or stop the lesson with the claim that does not hold.

    `claim` states its tolerance, for example ``"both ways of computing V agree to 1e-12"``. A lesson's claims hold on
    every machine because a claim that fails raises AssertionError, with or without a comparison of the printed text,
    and under ``python -O``, which leaves out `assert`.
    """
    if not bool(holds):
        raise AssertionError(f"this should hold and does not: {claim}")
    print(f"{claim}: yes")
