"""Lesson 03, The KL constraint: its explorers, and a module for each exercise."""
