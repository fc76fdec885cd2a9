"""The comparison of two runs: its figures, its changes, and how they are shown."""
