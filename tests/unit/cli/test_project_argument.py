"""PROJECT: a number, or the address of a page of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from ml_backend.cli.project_argument import project_number
from ml_backend.errors import ConfigurationError


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:8080/inner")
    monkeypatch.setenv("NEXTMASK_LABEL_STUDIO_PUBLIC_URL", "https://labels.example.org/label-studio/")


@pytest.mark.parametrize(
    "text",
    [
        "12",
        " 12 ",
        "http://127.0.0.1:8080/inner/projects/12",
        "http://127.0.0.1:8080/inner/projects/12/",
        "http://localhost:8080/inner/projects/12/data?tab=3&task=7",
        "http://localhost:8080/inner/projects/12/settings/ml#top",
        "localhost:8080/inner/projects/12/data",
        "https://labels.example.org/label-studio/projects/12/data?tab=3",
        "https://LABELS.example.org:443/label-studio/projects/12",
        "labels.example.org/label-studio/projects/12",
    ],
)
def test_numbers_and_addresses(text: str) -> None:
    assert project_number(text) == 12


@pytest.mark.parametrize(
    "text",
    [
        "https://other.example.org/label-studio/projects/12/data",
        "http://127.0.0.1:8081/inner/projects/12",
        "http://127.0.0.1:8080/projects/12",
        "https://127.0.0.1:8080/inner/projects/12",
        "http://[broken/projects/12",
    ],
)
def test_another_label_studio_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LABEL_STUDIO_URL = http://127\.0\.0\.1:8080/inner,") as refused:
        project_number(text)
    assert "the project's number, 12" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "seven", "1.5", "١٢", "http://127.0.0.1:8080/inner/projects/", "/projects/0"]
)
def test_what_names_no_project_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="projects/7"):
        project_number(text)
