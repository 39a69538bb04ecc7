"""Level 7: the adapter for any server with a pid file: watches from outside and sends a signal."""
