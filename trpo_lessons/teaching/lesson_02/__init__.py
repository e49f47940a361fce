"""Lesson 02, The surrogate loss: its explorers, and a module for each exercise."""
