"""Lesson 09, Locomotion."""
