"""`nextmask doctor`: looks at an installation, its Label Studio and its projects, and says how to mend what is wrong.

Checks are functions that return findings; they run side by side, and none that fails or hangs keeps the others from
being told. Nothing is changed anywhere, and torch is not imported in this process: it may be what is broken.
"""

from ml_backend.doctor.examination import examine
from ml_backend.doctor.findings import Finding, Level, Report, Section

__all__ = ["Finding", "Level", "Report", "Section", "examine"]
