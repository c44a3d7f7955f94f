"""A model in memory before the first prediction asks for one: PyTorch alone takes seconds to import."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.services import Services

logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_END_SECONDS: Final = 1.0


@contextmanager
def warming_up(services: Services) -> Iterator[None]:
    """Load a model in a thread, once there is a project that one serves: a server without any does without PyTorch."""
    ended = threading.Event()
    thread = threading.Thread(target=_load_when_there_is_one, args=(services, ended), name="warm-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END_SECONDS)  # an import cannot be interrupted


def _load_when_there_is_one(services: Services, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            if _load(services):
                return
        except Exception as error:  # noqa: BLE001 (the prediction that meets it again says it to whom it concerns)
            logger.warning("no model could be loaded in advance: %s", error)
            return
        ended.wait(_PAUSE_SECONDS)


def _load(services: Services) -> bool:
    """Load the model of the first project that one serves; return whether there is one."""
    for project in services.store.projects():
        number = model_number(project.published_version)
        if number:
            services.predictor(project.id, number)
            logger.info("project=%s version=%s is loaded", project.id, project.published_version)
            return True
    return False
