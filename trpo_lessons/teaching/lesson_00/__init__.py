"""Lesson 00, Start here: its explorers, and a module for each exercise."""
