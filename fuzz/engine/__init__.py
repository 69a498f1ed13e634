"""Fuzzing in Python: inputs by mutation, guided by the lines that they reach."""
