"""The command line. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
