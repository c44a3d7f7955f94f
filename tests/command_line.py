"""nextmask's commands, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error, which is one line, and the last one."""
        lines = self.err.strip().splitlines()
        assert lines[-1].startswith("Error: "), self.err
        assert not any(line.startswith("Error: ") for line in lines[:-1])
        return lines[-1]

    def in_one_line(self) -> Ended:
        """The same, with the errors in one line: they are wrapped to the terminal's width."""
        return Ended(self.code, self.out, " ".join(self.err.split()))


Command = Callable[..., Ended]
