"""Mutants of the code that judges: which small changes the fast tests notice, by mutmut. See ``scripts/mutate``."""
