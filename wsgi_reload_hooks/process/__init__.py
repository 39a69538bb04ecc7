"""Level 1: pipes, threads and locks that work beside gevent, Linux process calls."""
