"""Level 7: the adapter for gunicorn."""
