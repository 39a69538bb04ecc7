"""Level 8: finds what gets in the way of reloads, in a running server and in the project."""
