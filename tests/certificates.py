"""Certificates of an authority of one's own, made with openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CONFIG = """[ca]
default_ca = here
[here]
database = index
rand_serial = yes
new_certs_dir = .
default_md = sha256
unique_subject = no
policy = names
[names]
commonName = supplied
"""


@dataclass(frozen=True)
class Authority:
    """An authority that nobody trusts by itself.

    Attributes:
        folder: of its files.
        name: the issuer of its certificates.
    """

    folder: Path
    name: str = "Example Hospital CA"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "index").touch()
        (self.folder / "config").write_text(_CONFIG)
        self._openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={self.name}", "-keyout", "key", "-out", "ca.pem"
        )

    @property
    def file(self) -> Path:
        """Its own certificate."""
        return self.folder / "ca.pem"

    def certificate(self, name: str, *, until: str = "20991231235959Z") -> Path:
        """Sign a certificate for a host name or address; returns one file with the key."""
        kind = "IP" if name.replace(".", "").isdigit() else "DNS"
        (self.folder / "extensions").write_text(f"subjectAltName={kind}:{name}\n")
        self._openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", "host.key", "-out", "host.csr")
        signer = ["-config", "config", "-cert", "ca.pem", "-keyfile", "key", "-extfile", "extensions"]
        times = ["-startdate", "20200101000000Z", "-enddate", until]
        self._openssl("ca", "-batch", "-notext", *signer, *times, "-in", "host.csr", "-out", "host.pem")
        file = self.folder / f"{name} until {until}.pem"
        file.write_text((self.folder / "host.pem").read_text() + (self.folder / "host.key").read_text())
        return file

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
