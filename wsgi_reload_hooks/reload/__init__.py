"""Level 6: decides what happens after a change: try, switch, refuse."""
