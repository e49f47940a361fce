"""Lesson 06, Single path: its explorers, and a module for each exercise."""
