"""Level 7: the adapter for any script: a supervisor runs the program as its child."""
