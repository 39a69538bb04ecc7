"""Level 7: the public functions `code_changed()` and `watch()`."""
