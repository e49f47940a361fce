"""The checks of lesson 04, Conjugate gradient: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_04.enough_iterations import enough_iterations
from trpo_lessons.teaching.lesson_04.fisher_product import fisher_product
from trpo_lessons.teaching.lesson_04.softmax_fisher_product import softmax_fisher_product
from trpo_lessons.teaching.lesson_04.solve import solve

CHECKS = in_order(softmax_fisher_product, fisher_product, solve, enough_iterations)
