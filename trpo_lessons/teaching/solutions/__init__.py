"""Reference solutions, one module a lesson. Each function has the name of its exercise.

Lessons never import this package (a test says so); checks look a solution up only when they run.
"""
