"""What ``fixtures/`` says is expected: hardware, pair, level, facts, floors. Knows no server and no verdict."""
