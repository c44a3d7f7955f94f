"""nextmask for the stock server of label-studio-ml, which serves it in place of `nextmask serve`.

The only module that imports label_studio_ml, and none of ours imports it:

    label-studio-ml init FOLDER --script ml_backend/model.py
    label-studio-ml start FOLDER
    nextmask worker

Constructor and `fit` fit the signatures of 1.0.9 and of 2.x.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ml_backend.errors import ConfigurationError
from ml_backend.projects.services import Services, open_services
from ml_backend.server.model import NextmaskModel, payload_project, wake
from ml_backend.server.smart_tools import SmartTools
from ml_backend.settings import load_settings

try:
    from label_studio_ml.model import LabelStudioMLBase
except ImportError as error:
    raise ConfigurationError(
        f"label-studio-ml's own server needs packages that are not installed ({error}): "
        "pip install 'nextmask[label-studio-ml]'. nextmask serve does without."
    ) from error


class NextmaskBackend(NextmaskModel, LabelStudioMLBase):  # type: ignore[misc]  # label_studio_ml has no types
    """What label-studio-ml constructs for each request, by the settings of the environment."""

    def __init__(self, project_id: str | int | None = None, label_config: str | None = None, **_host: Any) -> None:
        # LabelStudioMLBase would read label_config eagerly, and keep the host's access token: we need neither.
        super().__init__(services_of_environment(), project_id, label_config, smart_tools_of_environment())

    def fit(self, *arguments: Any, **params: Any) -> dict[str, Any]:
        """Wake the worker, which asks Label Studio itself what is new: a training in a request is lost with it.

        Args:
            arguments: event and data in label-studio-ml 2.x; tasks in 1.0.9, which are not used.
            params: `event` and `data` (the webhook's payload), from either line of label-studio-ml.
        """
        event, data = arguments if len(arguments) == 2 else (params.get("event"), params.get("data"))
        project_id = self._project_id or payload_project(data if isinstance(data, Mapping) else {})
        if project_id is not None:
            wake(self._services.store, project_id, event)
        return {}


@lru_cache(maxsize=1)
def services_of_environment() -> Services:
    """Return what all models of this process work with: opened once, by the settings of the environment.

    Raises:
        ConfigurationError: a setting is invalid.
        StoreError: the state database cannot be opened.
    """
    return open_services(load_settings())


@lru_cache(maxsize=1)
def smart_tools_of_environment() -> SmartTools:
    """Return what answers clicks in this process; errors as of `services_of_environment`."""
    return SmartTools(services_of_environment())
