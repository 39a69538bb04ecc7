"""Level 4: tries new code in a fresh interpreter, next to the processes that serve."""
