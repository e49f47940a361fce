"""Checks of exercises that differentiate: what torch raises about a graph, said in the exercise's own terms."""

from __future__ import annotations

import functools

from trpo_lessons.teaching.checks import Check, Function, Outcome

# Part of what torch says, and what it means to somebody who differentiates the KL twice.
MEANINGS = (
    (
        "does not require grad",
        "there is no graph to differentiate. Either the first gradient was taken without create_graph=True, which is "
        "tempting, because one gradient needs none; its result is then plain numbers, and the second derivative has "
        "nothing to work on. Or theta was not told to keep a graph: theta.detach().requires_grad_()",
    ),
    (
        "not have been used in the graph",
        "what you differentiate was not computed from what you differentiate by; tempting, because theta and its copy "
        "hold the same numbers. The new policy has to be asked at the very tensor that the gradient is taken by",
    ),
    (
        "backward through the graph a second time",
        "the graph was dropped after its first use; tempting, because one gradient needs it once. create_graph=True in "
        "the first gradient keeps it for the second",
    ),
    (
        "a view of a leaf Variable that requires grad is being used in an in-place operation",
        "a tensor that keeps a graph was changed in place; make a new one instead",
    ),
)


class GraphCheck(Check):
    """A check whose line says what an error about graphs means, in the place of torch's own words."""

    def outcome(self, student: Function) -> Outcome:
        """As `Check.outcome`."""
        return super().outcome(_explaining(student) if callable(student) else student)


def _explaining(student: Function) -> Function:
    @functools.wraps(student)
    def call(*arguments: object, **options: object) -> object:
        try:
            return student(*arguments, **options)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            for said, meaning in MEANINGS:
                if said in str(error):
                    raise RuntimeError(meaning) from error
            raise

    return call
