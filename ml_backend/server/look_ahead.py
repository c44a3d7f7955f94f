"""Images that will be labelled next are looked at before anybody clicks in them, while the server has nothing to do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ml_backend.annotations.label_map import label_map_of
from ml_backend.errors import NextmaskError
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.server.smart_tools import SmartTools
from ml_backend.store import Project
from ml_backend.system.memory import available_bytes

logger = logging.getLogger(__name__)

IMAGES: Final = 8
"""Next images of the queue of each project that are looked at."""
PAUSE_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 2.0
"""Nothing is prepared so soon after a click: the next one is to find the processor free."""
_END_SECONDS: Final = 1.0
_SPARE_BYTES: Final = 1_000_000_000
"""Nothing is prepared, and what is kept is given back, where less memory is left."""


@contextmanager
def preparing(services: Services, smart_tools: SmartTools) -> Iterator[None]:
    """Prepare the next images of all projects with smart tools, in a thread that ends with the server."""
    ended = threading.Event()
    work = LookAhead(services, smart_tools, ended)
    thread = threading.Thread(target=work.run, name="look-ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END_SECONDS)  # a pass through the network cannot be interrupted


class LookAhead:
    """Prepares images; what was prepared for a version of a project is not prepared again.

    Args:
        ended: set when the server ends.
    """

    def __init__(self, services: Services, smart_tools: SmartTools, ended: threading.Event) -> None:
        self._services, self._smart_tools, self._ended = services, smart_tools, ended
        self._done: dict[int, tuple[str | None, set[str]]] = {}

    def run(self) -> None:
        """Look again and again, until the server ends."""
        while not self._ended.wait(PAUSE_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 (a click that meets it again says it to whom it concerns)
                logger.warning("no image could be prepared for smart tools: %s", error)

    def look(self) -> int:
        """Prepare what is next in the queues; return how many images that were."""
        return sum(self._prepare(project) for project in self._services.store.projects() if project.managed)

    def _prepare(self, project: Project) -> int:
        settings, _ = project_settings(self._services.settings, self._services.store, project)
        try:
            label_map = label_map_of(project.label_config, settings)
        except NextmaskError:
            return 0
        if not label_map.smart_tools:
            return 0
        version, done = self._done.get(project.id, (None, set[str]()))
        if version != project.published_version:
            done = set()
        self._done[project.id] = project.published_version, done
        ranked = self._services.store.ranked(project.id, limit=IMAGES)
        waiting = {task.image: task.task_id for task, _ in ranked if task.image not in done}
        prepared = 0
        while waiting and self._has_leave():
            try:
                together = list(waiting)[: self._smart_tools.together(project, settings, label_map)]
                problems = self._smart_tools.prepare(project, together, settings, label_map)
            except NextmaskError as error:
                together = list(waiting)[:1]
                problems = {together[0]: str(error)}
            for image in together:  # one that fails is not tried again: the click says why
                done.add(image)
                task = waiting.pop(image)
                if image in problems:
                    logger.info("project=%s task=%s is not prepared: %s", project.id, task, problems[image])
            prepared += len(together) - len(problems)
        return prepared

    def _has_leave(self) -> bool:
        """Whether an image may be prepared now."""
        is_quiet = time.monotonic() - self._smart_tools.used_at > _QUIET_SECONDS
        if self._ended.is_set() or not is_quiet:
            return False
        left = available_bytes()
        if left is not None and left < _SPARE_BYTES:
            self._smart_tools.release()
            return False
        return True
