"""Lesson 10, Atari."""
