"""Level 0: settings, log lines, refusals, errors, text. Imports nothing of the other folders."""
