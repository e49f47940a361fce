"""Lesson 04, Conjugate gradient: its explorers, and a module for each exercise."""
