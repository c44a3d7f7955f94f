"""The command line. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""

import sys

if sys.platform == "win32":
    # Before modules are imported that Windows lacks.
    sys.exit("nextmask runs on Linux and macOS. On Windows, run it in WSL or in Docker: docs/docker.md")
