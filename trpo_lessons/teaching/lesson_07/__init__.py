"""Lesson 07, The vine: its explorers, and a module for each exercise."""
