"""Level 2: which files count, whether they changed, and the engines that notice it."""
