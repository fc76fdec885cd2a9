"""Compares two runs: their figures, the changes, and how they are shown."""
