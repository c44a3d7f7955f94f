"""nextmask: a Label Studio ML backend that decides which mask is worth drawing next."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nextmask")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
