#!/bin/sh
# Makes a virtual environment with the newest Python that fits: sh scripts/new_environment.sh FOLDER [NEWEST]
# NEWEST is 3.14 where it is left out. Where PYTHON is set, that one has to do.
set -eu
newest=${2:-3.14}
fits="import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, ${newest#3.}))"
for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
    if "$python" -c "$fits" >/dev/null 2>&1; then
        exec "$python" -m venv "$1"
    fi
done
echo "$1 needs a Python from 3.11 to $newest with its module venv, and ${PYTHON:-PATH} has none: install one" \
    "(Debian and Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3.13; macOS: brew install python@3.13)," \
    "or name one: make PYTHON=/path/to/python." >&2
exit 1
