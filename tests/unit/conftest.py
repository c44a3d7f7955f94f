"""What tests of the parts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from http_host import Host


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these run slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def host() -> Iterator[Host]:
    """A server that stands for Label Studio where a test decides its answers."""
    with Host().serving() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    """Another server."""
    with Host().serving() as running:
        yield running
