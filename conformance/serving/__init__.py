"""The life of a server, wherever it runs: command, start, pool, watchdogs, containers, SSH, logs, counters."""
