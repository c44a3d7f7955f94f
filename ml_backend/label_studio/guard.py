"""Connections for files: only to allowed addresses, and no longer than a file may take.

A name is resolved once, its addresses are checked, and the connection goes to a checked address: a name that resolves
to another address a moment later (DNS rebinding) changes nothing. TLS still checks the certificate of the name.
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

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager
from urllib3.response import HTTPResponse
from urllib3.util import connection

from ml_backend.images.hosts import ImageHosts, entry_for
from ml_backend.label_studio.tokens import Origin
from ml_backend.system.trust import TrustingAdapter

_ADDRESSES = 4  # of a name that are tried: each may cost a time-out


class NotAllowed(Exception):
    """A host is not allowed.

    Attributes:
        host: its name or address.
        entry: the entry of NEXTMASK_IMAGE_HOSTS that allows it.
    """

    def __init__(self, host: str, entry: str) -> None:
        super().__init__(host)
        self.host, self.entry = host, entry


class TooLate(Exception):
    """The file did not come in time."""


class FileFetch:
    """A file that is being fetched, with its allowed hosts and its deadline, as a context manager.

    Args:
        hosts: allowed hosts.
        home: origin of Label Studio, which is always allowed.
        seconds: time after which the connection is cut, even in the middle of the file.
    """

    def __init__(self, hosts: ImageHosts, home: Origin, seconds: float) -> None:
        self._hosts, self._home = hosts, home
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._late = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> FileFetch:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None  # it may serve other files from now on

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the fetch that new connections of this thread belong to."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def check(self) -> None:
        """Raise TooLate after the deadline."""
        if self._late:
            raise TooLate

    def hold(self, sock: socket.socket | None) -> None:
        """Remember the socket that is being read, so that it can be cut.

        Raises:
            TooLate: after the deadline.
        """
        with self._lock:
            self._socket = sock
        self.check()  # the deadline may have passed just before

    def allowed(self, scheme: str, host: str, port: int, addresses: list[str]) -> list[str]:
        """Return the allowed addresses among those that a host resolved to.

        Raises:
            NotAllowed: none is allowed.
        """
        if (scheme, host.lower(), port) == self._home or self._hosts.named(host, port):
            return addresses
        allowed = [address for address in addresses if self._hosts.permit(address, port)]
        if not allowed:
            raise NotAllowed(host, entry_for(host, port))
        return allowed

    def _cut(self) -> None:
        with self._lock:
            self._late = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # closed already
                    # The method of the base class: that of SSLSocket would remove the TLS layer during a read.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_CURRENT: ContextVar[FileFetch] = ContextVar("fetch")


class _Guarded(HTTPConnection):
    """A connection that belongs to a fetch."""

    _scheme = "http"

    def _new_conn(self) -> socket.socket:
        fetch = _CURRENT.get()
        fetch.check()
        if self.proxy is not None:  # the administrator set it; `Files` has checked what it is asked for
            return super()._new_conn()
        allowed = fetch.allowed(self._scheme, self.host.strip("[]"), int(self.port or 0), self._resolved())
        return self._connected(allowed[:_ADDRESSES], fetch)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 itself has it
        _CURRENT.get().hold(self.sock)
        return super().getresponse()

    def _resolved(self) -> list[str]:
        try:
            resolved = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, 0, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError:
            raise LocationParseError(f"{self.host!r}, label empty or too long") from None
        return list(dict.fromkeys(str(address[4][0]) for address in resolved))

    def _connected(self, addresses: list[str], fetch: FileFetch) -> socket.socket:
        failure: OSError | None = None
        for address in addresses:
            fetch.check()
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


class GuardedAdapter(TrustingAdapter):
    """Sends requests that belong to a fetch, and no others."""

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
