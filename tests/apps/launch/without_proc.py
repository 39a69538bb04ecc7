"""Becomes the program of its arguments, in a mount namespace where /proc is empty."""

import os
import sys

os.execvp("unshare", ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *sys.argv[1:]])
