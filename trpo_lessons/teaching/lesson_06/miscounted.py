"""Exercise miscounted of lesson 06, Single path."""

from __future__ import annotations

from numpy.random import Generator

from trpo_lessons.teaching.checks.hunting import HuntCheck
from trpo_lessons.teaching.lesson_06.column_hunt import HUNT


def nothing(_rng: Generator) -> tuple[()]:
    """The function takes no arguments."""
    return ()


miscounted = HuntCheck("miscounted", hunt=HUNT, minutes=12, inputs=nothing)

miscounted.hint(
    "limit taken for an end",
    "Where an episode is cut, nothing is put in the place of V: look for rows at limits that look like disasters.",
)
miscounted.hint(
    "value after a fall",
    "A network has an opinion of the floor, too. With it a fall costs less than it should, or seems a gain.",
)
miscounted.hint(
    "sum across resets",
    "The mean at an end hardly changes, for the next episode's surprises are 0 on average. But a fall from a given "
    "lean has one certain advantage, so its spread should be 0.",
)
miscounted.hint(
    "lambda left out",
    "Then luck is added up to the end of the episode. At an end there is nothing left to add, so look elsewhere.",
)
miscounted.hint(
    "log q of the next row",
    "The advantages are in order. At theta_old the policy is compared with itself: what should every ratio be?",
)
miscounted.hint(
    "log q not detached",
    "The advantages are in order, and the ratios too, wherever theta goes. What is the slope of a constant?",
)
miscounted.confusion(
    "limit taken for an end",
    "value after a fall",
    "termination",
    "tempting, because both are wrong at an end. One takes a future from who still stood, the other gives one to who "
    "fell: too low at limits, too high at falls.",
)
miscounted.confusion(
    "sum across resets",
    "lambda left out",
    "conditioning",
    "tempting, because both add up too much, and show in the spread. One adds what follows an end, and changes rows at "
    "an end; the other adds too much before it, and changes none of those.",
)
miscounted.confusion(
    "log q of the next row",
    "log q not detached",
    "detachment",
    "tempting, because both leave the advantages alone. With numbers of another row the ratios are not 1; with log q "
    "that follows theta they are 1 everywhere, and nothing is left to climb.",
)
miscounted.confusion(
    "value after a fall",
    "sum across resets",
    "termination",
    "tempting, because both count something after a fall. An opinion of the floor is one number and moves the mean; "
    "another episode is luck and makes a spread.",
)
