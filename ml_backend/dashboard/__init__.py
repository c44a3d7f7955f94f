"""The dashboard: the pages that a team looks at all day, served by `nextmask serve` at `/`.

    projects        all connected projects
    overview        a project: its state, `learning_curve`, `labelling_time`, latest events
    queue           the images that are labelled next, as pictures; `task` shows one of them large
    versions        the versions, and the way back to an earlier one; `version` shows one of them, and hands it out
    compare         two versions side by side
    tasks, events   tasks that no version learns from; what happened
    unchanged       labels that were submitted as the mask that was shown
    annotating      the guide for annotators
    picture_routes  the addresses of pictures; `pictures/` draws them, and measures two versions
    pages           what pages share: the project of an address, parts of long lists, errors as pages
    rendering       templates and their filters; `static` serves style sheets and scripts

Pages are made on the server, from the store and the checkpoints alone, so they open while Label Studio is down, and
reading takes no script. htmx keeps the live parts fresh, Chart.js draws the curves; both are in the package. A module
that makes a page has the function `add_pages`, and the values that the page shows as frozen dataclasses.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from ml_backend.dashboard import (
    annotating,
    compare,
    events,
    overview,
    picture_routes,
    projects,
    queue,
    task,
    tasks,
    unchanged,
    version,
    versions,
)
from ml_backend.dashboard.pages import PageRoute
from ml_backend.dashboard.pictures import Comparisons, PictureCache, Pictures, Subjects
from ml_backend.dashboard.static import static_files
from ml_backend.projects.services import Services

__all__ = ["add_dashboard"]


def add_dashboard(app: FastAPI, services: Services) -> None:
    """Add the pages and their static files to an application."""
    settings, store = services.settings, services.store
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    cache = PictureCache(settings.local_folder / "pictures")
    pictures = Pictures(services, cache)
    annotating.add_pages(router)
    for page in (projects, overview, versions, version, tasks, unchanged):
        page.add_pages(router, settings, store)
    events.add_pages(router, store)
    picture_routes.add_pages(router, store, Subjects(settings, store), pictures)
    queue.add_pages(router, settings, store, pictures)
    task.add_pages(router, settings, store, pictures)
    compare.add_pages(router, settings, store, Comparisons(settings, store, pictures, cache))
    app.include_router(router)
    app.mount("/static", static_files(), name="static")
