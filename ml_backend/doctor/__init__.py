"""`nextmask doctor`: looks at an installation, its Label Studio and its projects, and says how to mend what is wrong.

    examination    which checks there are, and what each of them needs
    running        runs them side by side; a check that fails or hangs does not keep the others from being told
    findings       what a check tells: message, why it matters, remedy
    installation/  environment, disk, database, server, worker
    torch_setup    packages, GPU, network and weights; asked by `probe`, a program of its own
    label_studio/  address and clock, token and rights, release, protection
    project/       connection, queue, labels, images

Checks are functions that return findings. Nothing is changed anywhere, and torch is not imported in this process: it
may be what is broken.
"""

from ml_backend.doctor.examination import examine
from ml_backend.doctor.findings import Finding, Level, Report, Section

__all__ = ["Finding", "Level", "Report", "Section", "examine"]
