"""Lesson 08, Nine methods."""
