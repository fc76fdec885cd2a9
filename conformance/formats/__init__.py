"""File formats that several packages read: JSON, JSON Lines, TOML tables, parts of tool calls, names of secrets."""
