"""Level 5: publishes reload events to history, callbacks, metrics and systemd."""
