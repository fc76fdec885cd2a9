"""Formats that several packages read: JSON, JSON Lines, TOML tables, deltas of tool calls, names of secrets."""
