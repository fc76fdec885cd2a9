"""One session, from its options to its exit code: the pytest plugin, recording, and judging recorded evidence."""
