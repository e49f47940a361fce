"""Exercise culprits of lesson 05, The trust-region step."""

from __future__ import annotations

from numpy.random import Generator

from trpo_lessons.teaching.checks.hunting import HuntCheck
from trpo_lessons.teaching.lesson_05.bug_hunt import BUGS, HUNT


def no_arguments(_rng: Generator) -> tuple[()]:
    """The reports are on the page."""
    return ()


culprits = HuntCheck("culprits", hunt=HUNT, minutes=15, inputs=no_arguments)
KL_REVERSED, NO_ROOT, NO_DAMPING, NO_KL, ATTACHED = BUGS

culprits.hint(
    ATTACHED,
    "Without a detached old policy the KL is zero for every theta, and so is its matrix: what is left to solve is "
    "damping times x = g. How many iterations does that take?",
)
culprits.hint(NO_KL, "Look for an update that has seen a KL above delta, and was content.")
culprits.hint(
    KL_REVERSED,
    "That update believes it is inside the trust region. Where does the audit disagree, in the bold job, by more than "
    "it does for the healthy update?",
)
culprits.hint(
    NO_ROOT,
    "A step that is too short by the square root of 2 has half the KL in the careful job, where the bowl is exact, and "
    "never has to be shortened.",
)

culprits.confusion(
    KL_REVERSED,
    NO_KL,
    "order",
    "tempting, because both end outside the trust region. A search that does not look at the KL reports one above "
    "delta without a qualm. The one that measures it the wrong way round reports one below, and only the audit is "
    "above.",
)
culprits.confusion(
    NO_DAMPING,
    ATTACHED,
    "detachment",
    "tempting, because both solve with a wrong matrix and are shortened a lot. Without damping the system is harder, "
    "so the residual is larger. Without a matrix there is nothing but damping: one iteration, and done.",
)
culprits.confusion(
    NO_ROOT,
    NO_DAMPING,
    "constant",
    "tempting, because both change the length of the careful step by about the square root of 2. In opposite "
    "directions, though: the missing root makes it shorter, the missing damping longer; and only the missing damping "
    "changes the residual.",
)
culprits.confusion(
    NO_ROOT,
    NO_KL,
    "concept",
    "tempting, because neither shortens the bold step. The one has no need to, its KL is well below delta; the other "
    "has, and does not know.",
)
culprits.confusion(
    NO_ROOT,
    KL_REVERSED,
    "concept",
    "tempting, because either KL looks too small. In the careful job, where both directions of the KL agree, only the "
    "missing root halves it.",
)
