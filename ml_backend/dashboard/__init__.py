"""The dashboard: what a team looks at all day, served by `nextmask serve` at `/`.

Pages are made on the server, from the store and the checkpoints alone, so they open while Label Studio is down, and
reading takes no script. htmx keeps the live parts fresh, Chart.js draws the curves; both are in the package.

    rendering   Jinja2, filters, the frame of a page
    pages       the router; errors as pages
    <page>      one module per page, with what it shows as frozen dataclasses
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from ml_backend.dashboard import comparison, events, overview, picture_files, projects, queue, tasks, versions
from ml_backend.dashboard.pages import PageRoute
from ml_backend.dashboard.pictures import Comparisons, PictureCache, Pictures
from ml_backend.dashboard.static import static_files
from ml_backend.projects.services import Services

__all__ = ["add_dashboard"]


def add_dashboard(app: FastAPI, services: Services) -> None:
    """Add the pages and their static files to an application."""
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    for page in (projects, overview, versions, tasks, events):
        page.add_pages(router, services)
    cache = PictureCache(services.settings.model_dir / "pictures", max_bytes=services.settings.picture_cache_bytes)
    pictures = Pictures(services, cache)
    picture_files.add_pages(router, services, pictures)
    queue.add_pages(router, services, pictures)
    comparison.add_pages(router, services, Comparisons(services, pictures, cache))
    app.include_router(router)
    app.mount("/static", static_files(), name="static")
