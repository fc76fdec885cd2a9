"""Known-bad builds: each exhibit brings a documented defect back on purpose, and the suite must catch it."""
