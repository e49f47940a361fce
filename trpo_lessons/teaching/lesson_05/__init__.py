"""Lesson 05, The trust-region step: its explorers, and a module for each exercise."""
