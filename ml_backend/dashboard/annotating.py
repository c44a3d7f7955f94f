"""The guide for annotators: docs/annotating.md as a page, made by scripts/make_annotating_page.py."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.rendering import render


def add_pages(router: APIRouter) -> None:
    """Add `/annotating`."""

    @router.get("/annotating")
    def annotating(request: Request) -> Response:
        return render(request, "annotating.html")
