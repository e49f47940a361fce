"""The checks of lesson 08, Nine methods: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_08.choose_and_report import choose_and_report
from trpo_lessons.teaching.lesson_08.fisher_product_elsewhere import fisher_product_elsewhere
from trpo_lessons.teaching.lesson_08.natural_step import natural_step
from trpo_lessons.teaching.lesson_08.refit import refit
from trpo_lessons.teaching.lesson_08.reps_weights import reps_weights
from trpo_lessons.teaching.lesson_08.welch_interval import welch_interval

CHECKS = in_order(natural_step, fisher_product_elsewhere, refit, reps_weights, welch_interval, choose_and_report)
