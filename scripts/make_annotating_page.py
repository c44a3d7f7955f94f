"""Makes the dashboard's page for annotators from docs/annotating.md; run it when that page changes: a test compares.

    .venv/bin/python scripts/make_annotating_page.py

The page is read where there is no internet, so its pictures are files of the package.
"""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "annotating.md"
TARGET = ROOT / "ml_backend" / "dashboard" / "templates" / "annotating_text.html"
_PICTURE = re.compile(r'<img src="\.\./ml_backend/dashboard/static/([^"]+)"')


def page(markdown: str) -> str:
    """Returns the part of the page that the guide makes, as a template."""
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    html = _PICTURE.sub(r"""<img src="{{ static('\1') }}" loading="lazy" """.rstrip(), html)
    html = html.replace(
        "<table>", '<div class="scroll" tabindex="0" role="region" aria-label="Keys"><table class="dense">'
    )
    html = html.replace("</table>", "</table></div>").replace("<th>", '<th scope="col">')
    return f"{{# Made from docs/annotating.md by scripts/make_annotating_page.py: change it there. #}}\n{html}"


def main() -> None:
    """Writes the page."""
    TARGET.write_text(page(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
