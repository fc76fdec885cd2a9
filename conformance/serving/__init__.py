"""Running servers on any executor: commands, start, pool, watchdogs, containers, SSH, logs and counters."""
