"""Starts a command that ends when the process that started it ends, even by kill -9.

Run as a file, not imported: `python leash.py PARENT_PID COMMAND [ARGUMENT …]`. The kernel sends SIGTERM to the
command when the thread that started it is gone. Other systems than Linux have no such order; there the command
just starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, command: list[str]) -> None:
    """Becomes the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that asked for this command is already gone")
    os.execv(command[0], command)  # noqa: S606 - the command is an argument list, no shell reads it


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
