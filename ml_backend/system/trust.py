"""TLS: which certificates are trusted, and what is wrong with one that is not.

Trusted are the authorities that the library requests brings along, or those of REQUESTS_CA_BUNDLE in their place; and
those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR. The last two count beside REQUESTS_CA_BUNDLE, too: who sets
them wants them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util import parse_url
from urllib3.util.ssl_ import create_urllib3_context

REMEDY = "set SSL_CERT_FILE to a file with the certificate of its authority"
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_EXPIRED, _NOT_YET_VALID = 10, 9
_ANOTHER_NAME = frozenset({62, 64})  # codes of OpenSSL, as all of these


class TrustingAdapter(HTTPAdapter):
    """Connections that trust the system's authorities as well as those of requests."""

    def __init__(self, **options: Any) -> None:
        self._context: ssl.SSLContext | None = None
        super().__init__(**options)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """Add what is trusted to the attributes of a connection."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https" and _counts_system(verify):
            if self._context is None:
                self._context = system_context()
            pool["ssl_context"] = self._context
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set what a connection trusts; a file that is not there is an error of TLS, and no traceback."""
        try:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise requests.exceptions.SSLError(str(error)) from None


def trusting_session() -> requests.Session:
    """Return a session for single requests."""
    session = requests.Session()
    session.mount("https://", TrustingAdapter())
    return session


def system_context() -> ssl.SSLContext:
    """Return a context that trusts the authorities of the system, or of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = create_urllib3_context()
    context.load_default_certs()
    return context


def why_refused(error: BaseException) -> str:
    """Say in words why TLS failed.

    Args:
        error: an SSLError of requests.
    """
    fault = verification_error(error)
    if fault is None:
        if "invalid path" in str(error):
            return f"REQUESTS_CA_BUNDLE names a file that is not there ({str(error).rpartition(': ')[2]})"
        return "it does not speak https" if "WRONG_VERSION" in repr(error) else "its TLS is not understood"
    why = f"its TLS certificate is not accepted: {_words(fault)}"
    return f"{why}; {REMEDY}" if is_of_unknown_authority(fault) else why


def verification_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """Return the error of a certificate's check among the causes of an error."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ssl.SSLCertVerificationError):
            return one
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return None


def is_of_unknown_authority(fault: ssl.SSLCertVerificationError) -> bool:
    """Whether a certificate is refused because nobody trusted has signed it."""
    return fault.verify_code in _UNKNOWN_AUTHORITY


def trusted_files(url: str) -> str:
    """Return where the trusted authorities come from, for people."""
    verify = requests.Session().merge_environment_settings(url, {}, None, None, None)["verify"]
    paths = ssl.get_default_verify_paths()
    system = ", ".join(path for path in (paths.cafile, paths.capath) if path) or "none of the system"
    bundle = f"REQUESTS_CA_BUNDLE = {verify}" if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    return f"{bundle} and {system}" if _counts_system(verify) else bundle


def issuer_of(url: str, patience: float) -> str:
    """Return who signed the certificate that a server shows, trusted or not; "" where that cannot be had."""
    address = parse_url(url)
    host, port = str(address.host or "").strip("[]"), address.port or 443
    with contextlib.suppress(OSError, ValueError):
        # A certificate that is itself trusted is accepted, and told in words, whoever signed it.
        shown = ssl.get_server_certificate((host, port), timeout=patience)
        context = ssl.create_default_context(cadata=shown)
        context.check_hostname, context.verify_flags = False, ssl.VERIFY_X509_PARTIAL_CHAIN
        with (
            socket.create_connection((host, port), timeout=patience) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            issuer: Any = (secure.getpeercert() or {}).get("issuer", ())
        names = dict(part[0] for part in issuer)
        return str(names.get("commonName") or names.get("organizationName") or "")
    return ""


def _counts_system(verify: object) -> bool:
    paths = ssl.get_default_verify_paths()
    is_set = paths.cafile not in (None, paths.openssl_cafile) or paths.capath not in (None, paths.openssl_capath)
    return verify is True or (bool(verify) and is_set)


def _words(fault: ssl.SSLCertVerificationError) -> str:
    if fault.verify_code == _EXPIRED:
        return "it has expired"
    if fault.verify_code == _NOT_YET_VALID:
        return "it is not valid yet, or the clock of this machine is wrong"
    if fault.verify_code in _ANOTHER_NAME:
        return "it is for another host name"
    if fault.verify_code in _UNKNOWN_AUTHORITY:
        return "nobody who is trusted here has signed it"
    return str(fault.verify_message)
