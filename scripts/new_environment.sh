#!/bin/sh
# Makes a virtual environment with the newest Python that nextmask supports: sh scripts/new_environment.sh FOLDER
# Where PYTHON is set, that one has to do.
set -eu
supported='import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
    if "$python" -c "$supported" >/dev/null 2>&1; then
        exec "$python" -m venv "$1"
    fi
done
echo "No Python from 3.11 to 3.14 with its module venv was found${PYTHON:+ as $PYTHON}: install one" \
    "(Debian and Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3.13; macOS: brew install python@3.13)," \
    "or name one: make PYTHON=/path/to/python." >&2
exit 1
