"""Play the recorded policies again, from starts that they were not scored by, and see whether they do as well.

    python -m trpo_lessons.bench.rescore               # all of them, some minutes; or by name: hopper pong/0

The exit status is 1 where one does not: where both scores are more than three combined standard errors apart.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from trpo_lessons import training, zoo_names
from trpo_lessons.bench.record import EPISODES
from trpo_lessons.training import RunError
from trpo_lessons.zoo_names import Entry

OTHER_STARTS = 1  # a seed; recordings have 0
WITHIN = 3.0  # combined standard errors


@dataclass(frozen=True)
class Again:
    """What a recorded policy scores now: the mean return of whole episodes, with its standard error."""

    entry: Entry
    score: float
    standard_error: float

    @property
    def apart(self) -> float:
        """How many combined standard errors lie between this score and the recorded one; 0 where they are equal."""
        difference = self.score - self.entry.score
        combined = math.hypot(self.standard_error, self.entry.standard_error or 0.0)
        return difference / combined if combined else math.copysign(math.inf, difference) if difference else 0.0

    @property
    def agrees(self) -> bool:
        """Whether they are at most `WITHIN` apart; what is no number agrees with nothing."""
        return abs(self.apart) <= WITHIN

    def __str__(self) -> str:
        recorded = f"{self.entry.score:.1f} ± {self.entry.standard_error or 0.0:.1f}"
        verdict = "" if self.agrees else "   NOT REPRODUCED"
        return (
            f"{self.entry.name:<16}{recorded:>16}{f'{self.score:.1f} ± {self.standard_error:.1f}':>16}"
            f"{self.apart:>+7.1f}{verdict}"
        )


def rescore(entry: Entry, episodes: int = EPISODES, seed: int = OTHER_STARTS) -> Again:
    """Play `episodes` whole episodes of a recorded policy. Raises RunError when its folder is damaged."""
    result = training.evaluate(training.load_run(entry.folder), episodes, seed)
    return Again(entry, result.mean, result.standard_error)


def reproduce(entry: Entry) -> Again:
    """`rescore`; where that disagrees, three times as many episodes from yet other starts decide.

    By chance, one of two hundred scores that are right disagrees, and there are dozens.
    """
    again = rescore(entry)
    return again if again.agrees else rescore(entry, 3 * EPISODES, OTHER_STARTS + 1)


def main() -> None:
    """Score recorded policies again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as trpo-lessons zoo lists them; default: all")
    wanted, failed = [], False
    names = parser.parse_args().names
    for name in names:
        entry = zoo_names.find(name)
        if entry is None:
            parser.exit(2, f"{zoo_names.unknown(name)}\n")
        wanted.append(entry)
    print(f"{'name':<16}{'recorded':>16}{'again':>16}{'z':>7}")
    for entry in wanted if names else zoo_names.read().entries:
        try:
            again = reproduce(entry)
        except RunError as error:
            parser.exit(2, f"{error}\n")
        print(again, flush=True)
        failed |= not again.agrees
    parser.exit(int(failed))


if __name__ == "__main__":
    main()
