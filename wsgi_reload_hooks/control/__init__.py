"""Level 4: the control socket, its server side, its client and the private runtime folder."""
