"""Used by the application, and by whoever configures its server."""

TEXT = "v1"
WORKERS = 2
