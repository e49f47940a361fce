"""Lesson 01, The policy-improvement bound: its explorers, and a module for each exercise."""
