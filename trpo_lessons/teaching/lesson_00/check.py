"""The checks of lesson 00, Start here: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_00.best_candidate import best_candidate
from trpo_lessons.teaching.lesson_00.discounted_returns import discounted_returns
from trpo_lessons.teaching.lesson_00.softmax_log_prob import softmax_log_prob

CHECKS = in_order(discounted_returns, best_candidate, softmax_log_prob)
