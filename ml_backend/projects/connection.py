"""Sets a Label Studio project up for nextmask, and puts back what was there.

Both can be repeated at any time, and report every change. What `connect` sees before its first change is what
`disconnect` goes back to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from ml_backend.annotations.config_edits import (
    labels_without_colours,
    with_palette,
    with_points_control,
    with_query_control,
    with_smart_tools,
)
from ml_backend.annotations.label_map import POINTS_CONTROL, label_map_of
from ml_backend.annotations.shortcomings import Shortcoming
from ml_backend.errors import LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.ranking import make_strategy
from ml_backend.projects.hidden_predictions import keep_hidden_predictions
from ml_backend.projects.hints import hints, question_hint
from ml_backend.projects.registration import Registration, check_backend_address, params_object, webhook_secret
from ml_backend.projects.smart_tools import keep_interactive
from ml_backend.projects.tabs import remove_tabs, show_passed_over, show_queue
from ml_backend.projects.undo import Undo
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.tables import DISCONNECTING

UNCERTAINTY_SAMPLING: Final = "Uncertainty sampling"
"""The order of tasks in which Label Studio serves by the score of predictions."""
_PROJECT_FIELDS: Final = ("sampling", "show_collab_predictions", "model_version")
_BAD_REQUEST: Final = 400
_LEAVE_SECONDS: Final = 60.0
"""A worker has so long to leave a project that is disconnected."""
_POLL_SECONDS: Final = 0.1


class Connection:
    """The connection of one project.

    Args:
        settings: of the installation.

    Attributes:
        hints: what the last `connect` has to tell of the labelling configuration.
    """

    def __init__(self, settings: Settings, store: Store, client: LabelStudio, project_id: int) -> None:
        self.hints: list[Shortcoming] = []
        self._settings, self._store, self._client, self._id = settings, store, client, project_id
        self._registration = Registration(settings, client, project_id, secret=webhook_secret(settings, store))
        self._undo = Undo(store, project_id)
        self._changes: list[str] = []

    # -- connect ------------------------------------------------------------------------------------------------------
    def lacks_query_control(self, extra_params: Mapping[str, Any] | None = None) -> bool:
        """Whether the strategy may ask for regions or points and the labelling configuration cannot show any.

        Raises:
            ConfigurationError, LabelConfigError, LabelStudioError: as `connect`.
        """
        check_backend_address(self._settings.effective_backend_url)
        backends = self._registration.backends()
        settings = self._settings.for_project(_merged(backends, extra_params or {}))
        make_strategy(settings.strategy, settings.strategy_options)
        label_map = label_map_of(str(self._client.project(self._id)["label_config"]), settings)
        return question_hint(label_map, settings, self._id) is not None

    def connect(
        self,
        extra_params: Mapping[str, Any] | None = None,
        *,
        add_query_control: bool = False,
        add_smart_tools: bool = False,
    ) -> list[str]:
        """Make the project ready; return what was changed (empty when all was in place).

        Args:
            extra_params: settings of this project, laid over those that Label Studio keeps with the backend; None as a
                value takes one back.
            add_query_control: give the labelling configuration a control for questions, if it has none: for regions
                where the strategy asks for those, else for points.
            add_smart_tools: give it controls of smart tools, if it has none: clicks and boxes that a mask follows.

        Raises:
            ConfigurationError: the backend's address cannot work, or a setting is invalid.
            LabelConfigError: the labelling configuration has no control that can hold a mask, or one that is to be
                added cannot be.
            LabelStudioError: Label Studio refused a step, or undoes it; it says which, and why.
        """
        self._changes = []
        check_backend_address(self._settings.effective_backend_url)
        backends = self._registration.backends()
        params = _merged(backends, extra_params or {})
        settings = self._settings.for_project(params)
        _check_learning(settings)
        project = self._client.project(self._id)
        xml = str(project["label_config"])
        label_map_of(xml, settings)
        if self._store.project(self._id) is None:
            # Known, but not yet to be worked on: its settings reach Label Studio further down.
            self._store.wake(self._id, managed=False)
        self._undo.remember({field: project.get(field) for field in _PROJECT_FIELDS})
        # Before the worker, whom the registration wakes, finds them.
        hidden = keep_hidden_predictions(self._store, self._id, self._client.model_versions(self._id))
        xml = self._change_config(xml, settings, add_query_control=add_query_control, add_smart_tools=add_smart_tools)
        is_interactive = bool(label_map_of(xml, settings).smart_tools)
        self._changes += self._registration.register_backend(backends, params, is_interactive=is_interactive)
        if is_interactive:
            keep_interactive(self._store, self._id, [{"is_interactive": True}])
        self._changes += self._registration.register_webhook()
        self._changes += self._set_project_fields(project)
        self._show_tabs()
        self._changes += [hidden] if hidden else []
        # Label Studio saves a project whole, and the worker, whom the registration woke, may have written its version
        # in the same moment: look whether ours lasted.
        project = self._client.project(self._id)
        self._set_project_fields(project)
        self.hints = hints(str(project["label_config"]), settings, self._id)
        if settings.stream_rate:
            self._changes += show_passed_over(self._client, self._id)
        self._store.wake(self._id, manage=True)
        self._tell("connected")
        return self._changes

    def _change_config(self, xml: str, settings: Settings, *, add_query_control: bool, add_smart_tools: bool) -> str:
        """Change the labelling configuration where it is to be changed; return it as it is then."""
        changed, changes = xml, []
        if labels_without_colours(xml):
            changed = with_palette(xml)
            changes.append("gave colours to labels that had none (Label Studio paints those alike)")
        if add_query_control:
            changed, added = _with_question_control(changed, settings)
            changes += added
        if add_smart_tools and (smart := with_smart_tools(changed, label_map_of(changed, settings))) != changed:
            changed = smart
            changes.append("added smart tools: clicks and boxes that a mask follows")
        if not changes:
            return xml
        self._undo.remember_config(xml, changed)
        try:
            self._client.update_project(self._id, label_config=changed)
        except LabelStudioError as error:
            if error.status != _BAD_REQUEST:
                raise
            # It does so where annotations name a control or an image that the configuration does not have.
            changes, changed = (
                [f"the labelling configuration stays as it is: Label Studio refuses to change it ({error})"],
                xml,
            )
        self._changes += changes
        return changed

    def _set_project_fields(self, project: Mapping[str, Any]) -> list[str]:
        """Let the order be the queue's, and predictions be shown; return what was changed."""
        wanted = {"sampling": UNCERTAINTY_SAMPLING, "show_collab_predictions": True}
        missing = {field: value for field, value in wanted.items() if project.get(field) != value}
        if missing:
            self._client.update_project(self._id, **missing)
        names = {"sampling": "task order set to uncertainty sampling"}
        return [names.get(field, "predictions are shown in the editor") for field in missing]

    def _show_tabs(self) -> None:
        changes, all_tasks = show_queue(self._client, self._id)
        if all_tasks is not None:
            self._undo.remember({"all_tasks_tab": all_tasks})
        self._changes += changes

    def _tell(self, kind: str) -> None:
        if self._changes:
            text = re.sub(r"//[^/@\s]+@", "//", "; ".join(self._changes))  # addresses may hold a password
            self._store.add_event(self._id, kind, f"{kind.capitalize()}: {text}.")

    # -- disconnect ---------------------------------------------------------------------------------------------------
    def disconnect(self) -> list[str]:
        """Put back what was there before `connect`; return what was changed.

        Predictions stay: deleting one while its task is open would make that annotator's Submit fail. Annotations are
        never touched.

        Raises:
            LabelStudioError: Label Studio refused a step, or undoes it; it says which, and why.
        """
        before = self._undo.values()
        self._stop_work()
        self._changes = self._registration.remove_backends()
        self._changes += self._registration.remove_webhooks()
        self._changes += remove_tabs(self._client, self._id, all_tasks=before.get("all_tasks_tab"))
        self._restore_project(before)
        keep_hidden_predictions(self._store, self._id, {})
        self._store.update_project(self._id, undo="", state="waiting", error="")
        self._tell("disconnected")
        return self._changes

    def _stop_work(self) -> None:
        """Make a worker that is at it leave, and wait until it has: what it wrote later would stay."""
        # The state keeps /setup, which Label Studio calls while its backends are listed, from taking the project up.
        stopped = {"managed": False, "state": DISCONNECTING}
        self._store.update_project(self._id, **stopped)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self._is_worked_on() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._store.update_project(self._id, **stopped)  # again: the worker showed its own state until it left

    def _is_worked_on(self) -> bool:
        project = self._store.project(self._id)
        return project is not None and project.is_held

    def _restore_project(self, before: Mapping[str, Any]) -> None:
        project = self._client.project(self._id)
        fields = {name: before[name] for name in _PROJECT_FIELDS if name in before}
        fields = {name: value for name, value in fields.items() if value != project.get(name)}
        if self._undo.is_made_by_connect(project.get("label_config")):
            fields["label_config"] = before["label_config"]
        for name, value in fields.items():
            self._changes.append(self._restore_field(name, value))

    def _restore_field(self, name: str, value: object) -> str:
        """Set a field of the project to what it was; return what was done, or why it cannot be."""
        try:
            self._client.update_project(self._id, **{name: "" if value is None else value})
        except LabelStudioError as error:
            if name == "label_config" and error.status == _BAD_REQUEST:
                return f"the labels stay as they are, since annotations use them ({error})"
            if name != "model_version":
                raise
            # A version is refused once its predictions are gone; then none is the nearest thing.
            self._client.update_project(self._id, model_version="")
            return f"model_version is empty: {value!r} is refused ({error})"
        return "labels as before" if name == "label_config" else f"{name} is {value!r} again"


def _with_question_control(xml: str, settings: Settings) -> tuple[str, list[str]]:
    """Return the configuration with the control that the strategy's questions need, and what was added to it."""
    asks_for_regions = make_strategy(settings.strategy, settings.strategy_options).asks_for_regions
    label_map = label_map_of(xml, settings)
    if asks_for_regions and label_map.query_control is None:
        changed = with_query_control(xml, query_control=settings.query_control)
        return changed, [f"added the control {settings.query_control!r} for the regions that are asked for"]
    if not asks_for_regions and label_map.points_control is None:
        changed = with_points_control(xml, unpainted=settings.unpainted)
        return changed, [f"added the control {POINTS_CONTROL!r}, whose points say the class of single pixels"]
    return xml, []


def _check_learning(settings: Settings) -> None:
    """Raise ConfigurationError where the strategy or the network cannot be made as configured."""
    from ml_backend.learning.networks import check_network  # takes torch with it
    from ml_backend.learning.networks.recipe import network_of

    make_strategy(settings.strategy, settings.strategy_options)
    architecture, options = network_of(settings)
    check_network(architecture, settings.encoder, options)


def _merged(backends: list[dict[str, Any]], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changed settings over those that the first backend carries; None takes a setting back."""
    kept = params_object(backends[0].get("extra_params")) if backends else {}
    return {name: value for name, value in {**kept, **changes}.items() if value is not None}
