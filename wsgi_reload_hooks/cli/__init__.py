"""Level 9: the command line."""
