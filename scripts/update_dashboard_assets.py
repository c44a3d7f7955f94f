"""Fetches the dashboard's style sheet and scripts from npm into the package, with their licences.

    python scripts/update_dashboard_assets.py                        # the versions named below
    python scripts/update_dashboard_assets.py --check                # only compare, change nothing

They are shipped unchanged, so that the dashboard works without the internet and under a policy that runs no script of
another host. To update a file: change its version here, run this, look at every page (docs/dashboard.md), and commit
the files with `vendor.json`, which holds their checksums; a test compares them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "ml_backend" / "dashboard" / "static" / "vendor"


@dataclass(frozen=True)
class Asset:
    """One file of an npm package, and the file that holds its licence."""

    package: str
    version: str
    file: str
    licence_file: str
    licence: str


ASSETS = (
    Asset("@picocss/pico", "2.1.1", "css/pico.min.css", "LICENSE.md", "MIT"),
    Asset("htmx.org", "2.0.11", "dist/htmx.min.js", "LICENSE", "0BSD"),
    Asset("chart.js", "4.6.1", "dist/chart.umd.min.js", "LICENSE.md", "MIT"),
)


def fetched(asset: Asset) -> dict[str, bytes]:
    """Returns the file and its licence as npm has them, by the names that they get here."""
    name = Path(asset.file).name
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{asset.package}@{asset.version}"]
        packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        with tarfile.open(Path(folder) / packed) as archive:
            files = {}
            for path, kept in ((asset.file, name), (asset.licence_file, f"{name}.LICENSE.txt")):
                member = archive.extractfile(f"package/{path}")
                assert member is not None, path
                files[kept] = member.read()
    return files


def main() -> None:
    """Writes the files and vendor.json."""
    parser = argparse.ArgumentParser(description="Fetch the dashboard's assets from npm.")
    parser.add_argument("--check", action="store_true", help="compare with npm, change nothing")
    check = parser.parse_args().check
    known = []
    for asset in ASSETS:
        files = fetched(asset)
        for name, content in files.items():
            path = FOLDER / name
            if not check:
                path.write_bytes(content)
            elif not path.exists() or path.read_bytes() != content:
                raise SystemExit(f"{name} is not that of {asset.package} {asset.version}")
        name = Path(asset.file).name
        sha256 = hashlib.sha256(files[name]).hexdigest()
        row = {"file": name, "package": asset.package, "version": asset.version, "licence": asset.licence}
        known.append(row | {"sha256": sha256})
        print(f"{asset.package} {asset.version}: {name}, {len(files[name]) / 1000:.0f} kB")
    if not check:
        (FOLDER / "vendor.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
