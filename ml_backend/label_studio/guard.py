"""Connections for files: only to addresses that are allowed, and not for longer than an image may take.

A name is resolved once, its addresses are checked, and one of those is connected to: a name that resolves to something
else a moment later (DNS rebinding) changes nothing. TLS still checks the certificate of the name.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager
from urllib3.response import HTTPResponse
from urllib3.util import connection

from ml_backend.images.hosts import ImageHosts, entry_for
from ml_backend.label_studio.tokens import Origin

_ADDRESSES = 4  # of one name that are tried: each may cost a time-out


class NotAllowed(Exception):
    """A host that may not be asked.

    Attributes:
        entry: what to add to NEXTMASK_IMAGE_HOSTS to allow it.
    """

    def __init__(self, host: str, entry: str) -> None:
        super().__init__(host)
        self.host, self.entry = host, entry


class TooLate(Exception):
    """The time of an image is up."""


class Errand:
    """One file that is being fetched: where it may lead, and until when. A context; afterwards its socket is let go.

    Args:
        hosts: that may be asked.
        home: the origin of Label Studio, which is always allowed.
        seconds: after which the connection is cut, however much of the file has come.
    """

    def __init__(self, hosts: ImageHosts, home: Origin, seconds: float) -> None:
        self._hosts, self._home = hosts, home
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._late = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Errand:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None  # from here on it may serve other files

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let the connections of this thread know about this errand."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def check(self) -> None:
        """Raise TooLate when the time is up."""
        if self._late:
            raise TooLate

    def hold(self, sock: socket.socket | None) -> None:
        """Remember the socket that is being read, so that it can be cut."""
        with self._lock:
            self._socket = sock
        self.check()  # it may have been late a moment before

    def addresses(self, scheme: str, host: str, port: int, found: list[str]) -> list[str]:
        """Return those of a name's addresses that may be connected to.

        Raises:
            NotAllowed: none may.
        """
        if (scheme, host.lower(), port) == self._home or self._hosts.named(host, port):
            return found
        allowed = [address for address in found if self._hosts.permit(address, port)]
        if not allowed:
            raise NotAllowed(host, entry_for(host, port))
        return allowed

    def _cut(self) -> None:
        with self._lock:
            self._late = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # closed already
                    # The method of the base class: SSLSocket's own takes the TLS layer away under the reader's feet.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_CURRENT: ContextVar[Errand] = ContextVar("errand")


class _Guarded(HTTPConnection):
    """A connection that belongs to an errand."""

    _scheme = "http"

    def _new_conn(self) -> socket.socket:
        errand = _CURRENT.get()
        errand.check()
        if self.proxy is not None:  # it was named by the administrator; what it may be asked for is checked before
            return super()._new_conn()
        found = self._resolved()
        allowed = errand.addresses(self._scheme, self.host.strip("[]"), int(self.port or 0), found)
        return self._connected(allowed[:_ADDRESSES], errand)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself has it
        _CURRENT.get().hold(self.sock)
        return super().getresponse()

    def _resolved(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, 0, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError:
            raise LocationParseError(f"{self.host!r}, label empty or too long") from None
        return list(dict.fromkeys(str(address[4][0]) for address in found))

    def _connected(self, addresses: list[str], errand: Errand) -> socket.socket:
        failure: OSError | None = None
        for address in addresses:
            errand.check()
            try:
                sock = connection.create_connection(
                    (address, int(self.port or 0)),
                    self.timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
                continue
            sys.audit("http.client.connect", self, self.host, self.port)
            return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from failure
        raise NewConnectionError(self, f"Failed to establish a new connection: {failure}") from failure


class _GuardedTls(_Guarded, HTTPSConnection):
    _scheme = "https"


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTls


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


class GuardedAdapter(HTTPAdapter):
    """Sends requests of errands only."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """Make the pools of connections through a proxy."""
        manager: PoolManager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = _POOLS
        return manager
