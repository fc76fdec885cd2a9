"""Reads the expectations in ``fixtures/``: hardware, pair, level, facts, floors. Knows no server and no verdict."""
