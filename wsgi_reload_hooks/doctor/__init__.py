"""Level 8: finds what will bite, in a running server and in the project."""
