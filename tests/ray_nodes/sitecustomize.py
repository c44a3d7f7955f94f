"""Python on the nodes of the tests' cluster: it dies where it has decoded the image that KILLING_IMAGE names.

So dies a process whose decoder crashes, or that the system ends for want of memory. The cache renames a file to its
name as soon as it is decoded.
"""

import os
import signal
import sys

_KILLING = os.environ.get("KILLING_IMAGE", "")


def _die(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.rename" and str(arguments[1]).endswith(_KILLING):
        os.kill(os.getpid(), signal.SIGKILL)


if _KILLING:
    sys.addaudithook(_die)
