"""Exercise human_scale of lesson 10, Atari."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_10.shared import Floats, agree

Pair = tuple[float, float]
Scale = Callable[[Floats, float, float], Pair]


class Games(NamedTuple):
    """What the student's function is given."""

    scores: Floats
    random: float
    human: float


def games(rng: Generator) -> Games:
    """Scores of eight games, some below a random player's and some above a person's."""
    random = float(rng.uniform(-25.0, 25.0))
    human = random + float(rng.uniform(10.0, 60.0))
    scores = rng.uniform(random - 0.5 * (human - random), human + 1.5 * (human - random), 8)
    return Games(scores, random, human)


human_scale = Check("human_scale", minutes=6, inputs=games, arguments=Games)


def error_of(scores: Floats) -> float:
    """The standard error of the mean, in points."""
    return float(scores.std(ddof=1) / len(scores) ** 0.5)


@human_scale.property("A player who always scores what a random one does has 0, and one who scores as a person does 1.")
def two_points(student: Scale, rng: Generator) -> bool:
    _, random, human = games(rng)
    ends = [student(np.full(5, score), random, human)[0] for score in (random, human)]
    return agree(ends, [0.0, 1.0])


@human_scale.property(
    "A player who always scores less than a random one should be below 0, and a better one than a person above 1."
)
def beyond_the_ends(student: Scale, rng: Generator) -> bool:
    _, random, human = games(rng)
    worse, better = (student(np.full(5, score), random, human)[0] for score in (random - 2, human + 2))
    return worse < 0 and better > 1


@human_scale.property(
    "If a game counted every point three times, and gave 50 more at the start, neither number should change."
)
def units_do_not_matter(student: Scale, rng: Generator) -> bool:
    scores, random, human = games(rng)
    return agree(student(3 * scores + 50, 3 * random + 50, 3 * human + 50), student(scores, random, human))


@human_scale.property("The standard error should not change when all scores rise by the same amount.")
def error_ignores_shifts(student: Scale, rng: Generator) -> bool:
    scores, random, human = games(rng)
    return agree(student(scores + 7, random, human)[1], student(scores, random, human)[1])


@human_scale.property(
    "Each game should count alike: one of eight that gains the distance of the two players raises the mean by 1/8."
)
def every_game_counts_alike(student: Scale, rng: Generator) -> bool:
    scores, random, human = games(rng)
    before = student(scores, random, human)[0]
    raised = [student(scores + each * (human - random), random, human)[0] - before for each in np.eye(len(scores))]
    return agree(raised, np.full(len(scores), 1 / len(scores)))


@human_scale.property("Four times as many games of the same kind should halve the standard error, or nearly so.")
def more_games(student: Scale, rng: Generator) -> bool:
    scores, random, human = games(rng)
    many = student(np.tile(scores, 40), random, human)[1]
    return agree(2 * student(np.tile(scores, 160), random, human)[1], many, 0.01)


@human_scale.property("Of two games the standard error should be half of what lies between them, and never negative.")
def two_games(student: Scale, rng: Generator) -> bool:
    scores, random, human = games(rng)
    apart = abs(scores[0] - scores[1]) / (human - random)
    return agree(student(scores[:2], random, human)[1], apart / 2)


@human_scale.property("The same score in every game should have a standard error of 0.", edge=True)
def no_spread(student: Scale, rng: Generator) -> bool:
    _, random, human = games(rng)
    return agree(student(np.full(6, human + 3), random, human)[1], 0.0)


@human_scale.mistake(
    "concept",
    "You take the random player's score off the standard error as well; tempting, because both numbers go through the "
    "same formula. A spread does not move when all scores do: only divide it.",
)
def shifts_the_error(g: Games) -> Pair:
    span = g.human - g.random
    return float((g.scores.mean() - g.random) / span), (error_of(g.scores) - g.random) / span


@human_scale.mistake(
    "concept",
    "Your standard error is still in points; tempting, because it was right before. It belongs to a mean that is now "
    "counted in another unit: divide it too.",
)
def error_in_points(g: Games) -> Pair:
    return float((g.scores.mean() - g.random) / (g.human - g.random)), error_of(g.scores)


@human_scale.mistake(
    "concept",
    "You return the standard deviation of the games; tempting, because it is what the scores do. The question is how "
    "well their *mean* is known: divide by the root of their number.",
)
def deviation_for_error(g: Games) -> Pair:
    span = g.human - g.random
    return float((g.scores.mean() - g.random) / span), float(g.scores.std(ddof=1) / span)


@human_scale.mistake(
    "concept",
    "You divide by the person's score; tempting, because 'half as good as a person' sounds like that. Pong starts at "
    "-20: zero points are no natural zero. Measure from the random player.",
)
def share_of_human(g: Games) -> Pair:
    return float(g.scores.mean() / g.human), error_of(g.scores) / abs(g.human)


@human_scale.mistake(
    "concept",
    "You measure from the random player, and divide by the person's score; tempting, because the random one is often "
    "near 0. The unit is the distance between the two, so that a person has 1.",
)
def divides_by_human(g: Games) -> Pair:
    return float((g.scores.mean() - g.random) / g.human), error_of(g.scores) / abs(g.human)


@human_scale.mistake(
    "sign",
    "Your scale runs backward, with the person at 0 and the random player at 1; tempting, because it reads as 'what is "
    "missing'. Begin at the random player.",
)
def backward(g: Games) -> Pair:
    span = g.human - g.random
    return float((g.human - g.scores.mean()) / span), error_of(g.scores) / span


@human_scale.mistake(
    "concept",
    "You cut the scale off at 0 and at 1; tempting, because shares lie there. Who plays better than a person is above "
    "1, and a bad policy can be worse than chance.",
)
def clipped(g: Games) -> Pair:
    scaled = np.clip((g.scores - g.random) / (g.human - g.random), 0, 1)
    return float(scaled.mean()), error_of(scaled)


@human_scale.mistake(
    "conditioning",
    "You leave out games below the random player's score; tempting, because they look like accidents. They are part of "
    "how the policy plays, and without them every policy looks better than it is.",
)
def without_bad_games(g: Games) -> Pair:
    kept = g.scores[g.scores >= g.random]
    span = g.human - g.random
    return float((kept.mean() - g.random) / span), error_of(kept) / span


@human_scale.mistake(
    "concept",
    "You take the median game; tempting, because it minds no outliers. The tables hold means, and the standard error "
    "that you return is that of a mean.",
)
def median(g: Games) -> Pair:
    span = g.human - g.random
    return float((np.median(g.scores) - g.random) / span), error_of(g.scores) / span


@human_scale.mistake(
    "numerics",
    "Your standard deviation divides by n; tempting, because np.std does unless it is told otherwise. Squares around "
    "the sample's own mean are too small: divide by n - 1 (ddof=1).",
)
def divides_by_n(g: Games) -> Pair:
    span = g.human - g.random
    return float((g.scores.mean() - g.random) / span), float(g.scores.std() / len(g.scores) ** 0.5 / span)


@human_scale.mistake(
    "numerics",
    "You divide the standard deviation by the number of games; tempting, because a mean divides by n. Variances of "
    "independent games add up, so the error of their mean falls with the *root* of n.",
)
def divides_by_all_games(g: Games) -> Pair:
    span = g.human - g.random
    return float((g.scores.mean() - g.random) / span), float(g.scores.std(ddof=1) / len(g.scores) / span)
