"""The checks of lesson 02, The surrogate loss: `check.NAME(student_function)`."""

from __future__ import annotations

from trpo_lessons.teaching.checks import in_order
from trpo_lessons.teaching.lesson_02.effective_sample_size import effective_sample_size
from trpo_lessons.teaching.lesson_02.estimate import estimate
from trpo_lessons.teaching.lesson_02.from_stream import from_stream
from trpo_lessons.teaching.lesson_02.samples_needed import samples_needed

CHECKS = in_order(estimate, samples_needed, effective_sample_size, from_stream)
