"""Exercise choose_and_report of lesson 08, Nine methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_08.shared import Floats, agree

Choice = tuple[int, float]
Choose = Callable[[Floats, int], Choice]


def sweep(rng: Generator) -> tuple[Floats, int]:
    """Scores [settings, seeds], and how many of the seeds are for tuning."""
    shape = int(rng.integers(4, 9)), int(rng.integers(6, 10))
    return 5 + rng.normal(size=shape), int(rng.integers(2, 4))


def several(choose: Choose, scores: Floats, tuning: int) -> list[Choice]:
    """What is chosen and reported on this sweep and on three that are made of it by permuting settings and seeds."""
    rng = np.random.default_rng(scores.shape)
    shuffled = [rng.permuted(scores, axis=1) for _ in range(3)]
    return [choose(each, tuning) for each in (scores, *shuffled)]


choose_and_report = Check("choose_and_report", minutes=6, inputs=sweep, behavior=several)


@choose_and_report.property(
    "Two numbers are asked for, in this order: which setting, as a whole number from 0 on, then the score to report."
)
def names_a_setting(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    place = np.asarray(student(scores, tuning)[0])
    return place.dtype.kind in "iu"


@choose_and_report.property(
    "A setting that is better with every seed should be chosen. Settings are rows, and are counted from 0."
)
def chooses_the_best(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    scores[2] += 20
    return int(student(scores, tuning)[0]) == 2


@choose_and_report.property("What is chosen should not depend on the scores of the other seeds.")
def chooses_by_tuning_seeds(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    other = scores.copy()
    other[:, tuning:] = 5 + rng.normal(size=other[:, tuning:].shape)
    return int(student(scores, tuning)[0]) == int(student(other, tuning)[0])


@choose_and_report.property(
    "The setting with the best mean over all of the first `tuning` seeds should be chosen, whether its scores lie "
    "close together or far apart."
)
def chooses_by_the_mean(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    apart, together = scores.copy(), scores.copy()
    apart[:, :tuning] = 5.0
    apart[1, :tuning] = 4.0
    apart[1, rng.integers(tuning)] = 40.0
    together[:, :tuning] = 0.0
    together[:, rng.integers(tuning)] = 10.0
    together[3, :tuning] = 5.5
    right = (1, 3, int(scores[:, :tuning].mean(1).argmax()))
    return all(int(student(s, tuning)[0]) == i for s, i in zip((apart, together, scores), right, strict=True))


@choose_and_report.property(
    "What is reported should not depend on scores of tuning seeds, as long as the choice stays."
)
def reports_other_seeds(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    before = student(scores, tuning)
    better = scores.copy()
    better[before[0], :tuning] += 1  # so that the choice is certain
    return agree(student(better, tuning), before)


@choose_and_report.property("Of the settings that were not chosen nothing should be reported.")
def reports_the_chosen(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    before = student(scores, tuning)
    scores[np.arange(len(scores)) != int(before[0]), tuning:] += rng.uniform(10, 20)
    return agree(student(scores, tuning), before)


@choose_and_report.property(
    "Where one of the m other seeds earned m more with the chosen setting, whichever it is, what is reported should be "
    "1 more: it is the mean of them all."
)
def reports_a_mean(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    chosen, before = int(student(scores, tuning)[0]), float(student(scores, tuning)[1])
    others = scores.shape[1] - tuning
    for seed in range(tuning, scores.shape[1]):
        more = scores.copy()
        more[chosen, seed] += others
        if not agree(student(more, tuning), (chosen, before + 1)):
            return False
    return True


@choose_and_report.property(
    "What is reported should be that mean to the last digit. Is something rounded, or in float32?"
)
def reports_all_digits(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    chosen, found = student(scores, tuning)
    return agree(float(found), scores[int(chosen), tuning:].mean())


@choose_and_report.property(
    "Scores below zero go wrong. Is there an absolute value, or a number that stands for the worst?", edge=True
)
def negative_scores(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    (place, mean), (below, less) = student(scores, tuning), student(scores - 1000, tuning)
    return place == below and agree(less, mean - 1000, 1e-6)


@choose_and_report.property("With a single setting there is nothing to choose, but something to report.", edge=True)
def one_setting(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    return agree(student(scores[:1], tuning), (0, scores[0, tuning:].mean()))


@choose_and_report.property(
    "A run that broke down has a score of minus infinity, and its setting should not be chosen.", edge=True
)
def a_broken_run(student: Choose, rng: Generator) -> bool:
    scores, tuning = sweep(rng)
    chosen = int(student(scores, tuning)[0])
    scores[chosen, 0] = -np.inf
    others = np.delete(np.arange(len(scores)), chosen)
    expected = int(others[scores[others, :tuning].mean(1).argmax()])
    return int(student(scores, tuning)[0]) == expected


@choose_and_report.mistake(
    "conditioning",
    "You report the score on the seeds that you chose by; tempting, because it is the number that made you choose. "
    "The best of many noisy means is too high for just that reason: report on seeds that had no say.",
)
def reports_tuning_seeds(scores: Floats, tuning: int) -> Choice:
    means = scores[:, :tuning].mean(1)
    return int(means.argmax()), float(means.max())


@choose_and_report.mistake(
    "conditioning",
    "All seeds have a say in your choice; tempting, because more seeds choose better. They do, and then none is left "
    "to report on.",
)
def chooses_by_all(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores.mean(1).argmax())
    return chosen, float(scores[chosen, tuning:].mean())


@choose_and_report.mistake(
    "conditioning",
    "You choose by tuning seeds, and report the mean over all; tempting, because all were paid for. The tuning seeds "
    "are in it, and they are why this setting was chosen.",
)
def reports_all(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].mean(1).argmax())
    return chosen, float(scores[chosen].mean())


@choose_and_report.mistake(
    "conditioning",
    "You choose by the seeds that are reported; tempting, because those are the ones that count. This is selection on "
    "the test: choose by the first `tuning` seeds alone.",
)
def chooses_on_the_test(scores: Floats, tuning: int) -> Choice:
    means = scores[:, tuning:].mean(1)
    return int(means.argmax()), float(means.max())


@choose_and_report.mistake(
    "concept",
    "You choose the setting with the best single run; tempting, because it shows what is possible. The more a setting "
    "varies, the better its best run: choose by the mean.",
)
def chooses_the_best_run(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].max(1).argmax())
    return chosen, float(scores[chosen, tuning:].mean())


@choose_and_report.mistake(
    "concept",
    "You report the best of the runs; tempting, because papers show their best video. The mean over the seeds is what "
    "somebody else may expect.",
)
def reports_the_best_run(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].mean(1).argmax())
    return chosen, float(scores[chosen, tuning:].max())


@choose_and_report.mistake(
    "order",
    "You tune on the last seeds and report on the first; tempting, because a test set often stands at the front. The "
    "first `tuning` columns are for tuning.",
)
def takes_the_other_end(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, -tuning:].mean(1).argmax())
    return chosen, float(scores[chosen, :-tuning].mean())


@choose_and_report.mistake(
    "sign",
    "You choose the worst setting; tempting, because a loss is minimised. These are scores, and more is better.",
)
def chooses_the_worst(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].mean(1).argmin())
    return chosen, float(scores[chosen, tuning:].mean())


@choose_and_report.mistake(
    "concept",
    "You choose the setting whose worst run is best; tempting, because it is the cautious choice. It is another "
    "question: asked for is the best mean.",
)
def chooses_the_best_worst_run(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].min(1).argmax())
    return chosen, float(scores[chosen, tuning:].mean())


@choose_and_report.mistake(
    "concept",
    "You report the mean over all settings; tempting, because the axis is easily taken for the other one. Asked for is "
    "the mean of the chosen setting.",
)
def reports_all_settings(scores: Floats, tuning: int) -> Choice:
    chosen = int(scores[:, :tuning].mean(1).argmax())
    return chosen, float(scores[:, tuning:].mean())
