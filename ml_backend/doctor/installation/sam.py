"""SAM 2 that answers smart tools, where NEXTMASK_SAM asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.errors import ConfigurationError
from ml_backend.learning.refinement.sam_files import installed, sam_files


def check_sam(path: str) -> Iterator[Finding]:
    """Say whether SAM 2 can be read, as far as that shows without its weights; nothing where no path is given."""
    if not path:
        return
    try:
        sam_files(path)
    except ConfigurationError as error:
        why = "The project's own network answers smart tools in its place."
        yield problem("sam", error.cause, why, error.remedy)
    else:
        yield ok("sam", f"SAM 2 of {path} answers smart tools, by transformers {installed()}")
