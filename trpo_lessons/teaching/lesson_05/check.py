"""The checks of lesson 05, The trust-region step: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_05.culprits import culprits
from trpo_lessons.teaching.lesson_05.full_step import full_step
from trpo_lessons.teaching.lesson_05.sampled_kl import sampled_kl
from trpo_lessons.teaching.lesson_05.search import search

CHECKS = in_order(full_step, search, sampled_kl, culprits)
