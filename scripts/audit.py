"""Looks the dependencies up: known advisories, and licences. Run by `make audit` in an environment of its own.

    python scripts/audit.py PYTHON [--online]

PYTHON is the interpreter of the environment to look at. What docs/dependencies.md explains is let pass. A finding ends
with 1. Where the service of advisories cannot be reached, a warning says so, and the audit does not fail: whoever is
offline can do nothing about it. With --online, for machines that can ask, that is a failure as well. An answer that
skipped packages is no all-clear, whatever pip-audit says.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
SERVICES = ("pypi", "osv")
ALLOWED = re.compile(
    r"(the )?("
    r"mit( license)?|mit-cmu|mit-0|bsd( license)?|bsd-[23]-clause|0bsd|isc( license( \(iscl\)?)?)?|"
    r"apache(-| )?(software license|license)?,?( version)? ?(2\.0)?( with llvm-exception)?|"
    r"psf-2\.0|python-2\.0|cnri-python|python software foundation license|"
    r"(mozilla public license 2\.0 \()?mpl[- ]2\.0|hpnd|unlicense|cc0-1\.0|zlib|tcl|bsl-1\.0|"
    r"dfsg approved|public domain"
    r")",
    re.IGNORECASE,
)
INSTALLED = """
import importlib.metadata as m, json, re
def needed(name, extras=()):
    try:
        distribution = m.distribution(name)
    except m.PackageNotFoundError:
        return
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    seen.add(key)
    for line in distribution.requires or []:
        if "extra ==" not in line:
            needed(re.match(r"[\\w.-]+", line)[0])
seen = set()
needed("nextmask")
print(json.dumps(sorted(seen)))
"""


def main() -> int:
    """Look, tell, and return the exit code."""
    python, online = sys.argv[1], "--online" in sys.argv[2:]
    page = PAGE.read_text()
    problems = [
        *advisories(explained(page, "advisory"), online=online),
        *_licences(python, explained(page, "package", "licence")),
    ]
    for problem in problems:
        print(f"audit: {problem}")
    return 1 if problems else 0


def explained(page: str, *heads: str) -> list[list[str]]:
    """Return the rows of the page's table that begins with these columns."""
    start = "| " + " | ".join(heads) + " |"
    _, heading, rest = page.partition(f"\n{start}")
    if not heading:
        raise SystemExit(f"audit: {PAGE} has no table that begins with {start}")
    table = rest.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


# -- advisories -------------------------------------------------------------------------------------------------------
def advisories(known: list[list[str]], *, online: bool = False) -> list[str]:
    """Return the advisories that nothing explains; none, and a warning, where nobody could be asked."""
    for service in SERVICES:
        answer = _ask(service)
        if answer is not None:
            return unexplained(answer, known)
    nothing = (
        "NO ADVISORY WAS LOOKED UP. Neither PyPI nor OSV could be asked about the packages in "
        f"{CONSTRAINTS.name}: this run says nothing about known vulnerabilities. Run make audit where they can."
    )
    if online:
        return [nothing]
    print(f"audit: WARNING: {nothing}")
    return []


def _ask(service: str) -> dict[str, Any] | None:
    """Return pip-audit's answer, or None where the service told nothing of any package."""
    command = [sys.executable, "-m", "pip_audit", "-s", service, "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    run = subprocess.run([*command, "-f", "json", "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(run.stdout)
    except ValueError:
        return None
    return answer if any("vulns" in package for package in answer["dependencies"]) else None


def unexplained(answer: dict[str, Any], known: Iterable[list[str]]) -> list[str]:
    """Return the advisories that the page does not explain; say what was not looked up."""
    reasoned = {(row[1].lower(), row[0].upper()) for row in known}
    skipped = [package["name"] for package in answer["dependencies"] if "vulns" not in package]
    if skipped:
        print(f"audit: WARNING: not looked up: {', '.join(skipped)}")
    problems = []
    for package in answer["dependencies"]:
        for advisory in package.get("vulns", []):
            names = {advisory["id"].upper(), *map(str.upper, advisory.get("aliases", []))}
            if not any((package["name"].lower(), name) in reasoned for name in names):
                mended = ", ".join(advisory.get("fix_versions", [])) or "none"
                problems.append(
                    f"{package['name']} {package['version']}: {' '.join(sorted(names))}, mended in {mended}. "
                    "Upgrade, or explain in docs/dependencies.md why it does not reach nextmask."
                )
    print(f"audit: {len(answer['dependencies']) - len(skipped)} packages looked up")
    return problems


# -- licences ---------------------------------------------------------------------------------------------------------
def _licences(python: str, known: list[list[str]]) -> list[str]:
    needed = json.loads(subprocess.run([python, "-c", INSTALLED], capture_output=True, text=True, check=True).stdout)
    command = [str(Path(sys.executable).with_name("pip-licenses")), "--python", python, "--format", "json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    chosen = [row for row in rows if re.sub(r"[-_.]+", "-", row["Name"]).lower() in needed]
    if len(chosen) < len(needed) // 2:
        return [f"only {len(chosen)} of {len(needed)} packages were found in the environment of {python}"]
    print(f"audit: licences of {len(chosen)} packages that nextmask installs")
    return forbidden(chosen, [row[0] for row in known])


def forbidden(rows: Iterable[dict[str, str]], known: Iterable[str]) -> list[str]:
    """Return the packages whose licence is not on the list, and that the page does not explain."""
    patterns = list(known)
    return [
        f"{row['Name']} {row['Version']}: its licence {row['License']!r} is not allowed. See docs/dependencies.md."
        for row in rows
        if row["Name"] != "nextmask"
        and not any(fnmatch.fnmatch(row["Name"].lower(), pattern.lower()) for pattern in patterns)
        and not is_allowed(row["License"])
    ]


def is_allowed(licence: str) -> bool:
    """Whether a licence is on the list: all its parts joined by AND, and of those joined by OR any."""
    together = [part.strip(" ()") for part in re.split(r"\bAND\b|;", licence)]
    return all(any(ALLOWED.fullmatch(name.strip(" ()")) for name in re.split(r"\bOR\b", part)) for part in together)


if __name__ == "__main__":
    sys.exit(main())
