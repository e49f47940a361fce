"""Exercise what_went_wrong of lesson 09, Locomotion."""

from __future__ import annotations

from numpy.random import Generator

from trpo_lessons.teaching.checks.hunting import HuntCheck
from trpo_lessons.teaching.lesson_09.broken_runs import HUNT


def nothing(_rng: Generator) -> tuple[()]:
    """The function takes no arguments."""
    return ()


what_went_wrong = HuntCheck("what_went_wrong", hunt=HUNT, minutes=10, inputs=nothing)

what_went_wrong.hint(
    "one CG iteration",
    "One iteration of conjugate gradient is the plain gradient, scaled: look for what is left of the equation.",
)
what_went_wrong.hint(
    "damping of 10",
    "Damping makes the ruler longer than the KL is, so that steps come out short; and it makes the equation easy.",
)
what_went_wrong.hint(
    "no search", "Without a search a step that is a little too long is not shortened. What happens to it instead?"
)
what_went_wrong.hint(
    "gamma of 0.9",
    "Every report is in order. What does a robot do that looks ten steps ahead, and how long are its episodes?",
)
what_went_wrong.hint(
    "V hardly fitted", "The policy's update is in order; what it learns from is noisy. Which column is about V?"
)
what_went_wrong.confusion(
    "one CG iteration",
    "damping of 10",
    "conditioning",
    "tempting, because both turn the step toward the plain gradient, and both runs end at about the same return. One "
    "leaves most of its equation unsolved; the other solves it to the last digits, and steps a fraction of delta.",
)
what_went_wrong.confusion(
    "gamma of 0.9",
    "V hardly fitted",
    "concept",
    "tempting, because both hop a few times and fall. A V that is not fitted explains little; one that has to look ten "
    "steps ahead has an easy task, and explains nearly everything.",
)
what_went_wrong.confusion(
    "no search",
    "V hardly fitted",
    "concept",
    "tempting, because both learn next to nothing. One goes on taking whole steps in poor directions; the other takes "
    "no step at all.",
)
what_went_wrong.confusion(
    "no search",
    "damping of 10",
    "conditioning",
    "tempting, because both have a small KL. A KL of zero is no step; a KL of a third of delta is a short one.",
)
