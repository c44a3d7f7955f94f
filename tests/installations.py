"""Installations of nextmask beside this one, and an index of packages to install from."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from http_host import Answer, Host

ROOT = Path(__file__).parents[1]


def environment_beside(folder: Path) -> Path:
    """Make an environment that finds the dependencies of this one, and not its nextmask; returns its programs.

    The folder of packages is named in a file of paths, so what links packages there (an editable nextmask) is not read.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def copy_of_the_repository(folder: Path) -> Path:
    """Copy what somebody has who cloned it; building writes into the copy."""
    unwanted = shutil.ignore_patterns(".[!ce]*", "*.egg-info", "__pycache__", "build", "dist", ".coverage*", ".env")
    return Path(shutil.copytree(ROOT, folder, ignore=unwanted))


@contextmanager
def package_index(*wheels: tuple[str, str]) -> Iterator[str]:
    """Serve empty wheels, each a name and a version, as a package index does; yields its address."""
    index = Host()
    for name, version in wheels:
        file = quote(f"{name}-{version}-py3-none-any.whl")
        index.routes[f"/{file}"] = lambda _, name=name, version=version: Answer(_empty_wheel(name, version))  # type: ignore[misc]
        link = f'<a href="/{file}">{file}</a>'.encode()
        index.routes[f"/simple/{name}/"] = lambda _, link=link: Answer(link, headers={"Content-Type": "text/html"})  # type: ignore[misc]
    with index.serving():
        yield f"{index.url}/simple"


def _empty_wheel(name: str, version: str) -> bytes:
    content, folder = io.BytesIO(), f"{name}-{version}.dist-info"
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")
    return content.getvalue()


def constraint(name: str) -> str:
    """Return the version that the tests run with."""
    found = re.search(
        rf"^{name}==(\S+)$", (ROOT / "requirements" / "constraints.txt").read_text(), flags=re.MULTILINE | re.IGNORECASE
    )
    assert found, name
    return found[1]
