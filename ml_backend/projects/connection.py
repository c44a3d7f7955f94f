"""Sets a Label Studio project up for nextmask, and puts back what was there.

Both are idempotent and report every change. What `connect` finds before its first change is noted in the store, and
is what `disconnect` goes back to.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ml_backend.annotations.config_edits import labels_without_colours, with_palette, with_query_control
from ml_backend.annotations.label_map import label_map_of
from ml_backend.errors import ConfigurationError, LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.ranking import make_strategy
from ml_backend.projects.registration import (
    BACKEND_TITLE,
    SECRET_HEADER,
    UNCERTAINTY_SAMPLING,
    WEBHOOK_ACTIONS,
    is_ours,
    same_address,
    webhook_secret,
)
from ml_backend.projects.tabs import PASSED_TAB_TITLE, TAB_TITLE, all_tasks_tab, show_passed_over, tab_data, title_of
from ml_backend.settings import Settings
from ml_backend.store import Project, Store
from ml_backend.store.tables import DISCONNECTING

_REACHED = frozenset({"CO", "TR", "PR"})
"""States of a backend that the host could talk to: connected, training, predicting."""
_BAD_REQUEST = 400
_LEAVE_SECONDS = 60.0
_POLL_SECONDS = 0.1
SETTLE_SECONDS = 1.0
"""A listing of registrations that was under way is over by then, where a listing takes less than half of it."""
_SETTLE_TRIES = 8
_PROJECT_FIELDS = ("sampling", "show_collab_predictions", "model_version")


class Connection:
    """The connection of one project."""

    def __init__(self, settings: Settings, store: Store, client: LabelStudio, project_id: int) -> None:
        self._client, self._store, self._settings = client, store, settings
        self._id, self._secret = project_id, webhook_secret(settings, store)
        self._url = settings.effective_backend_url
        self._changes: list[str] = []
        self._listing_seconds = 0.0

    # -- connect ------------------------------------------------------------------------------------------------------
    def lacks_query_control(self, extra_params: Mapping[str, Any] | None = None) -> bool:
        """Whether the strategy asks for regions and the labelling configuration cannot show any.

        Raises:
            ConfigurationError, LabelConfigError, LabelStudioError: as `connect`.
        """
        self._check_address()
        backends = self._backends()
        kept = backends[0].get("extra_params") if backends else None
        settings = self._settings.for_project(_merged(kept, extra_params or {}))
        if not make_strategy(settings.strategy, settings.strategy_options).asks_for_regions:
            return False
        return label_map_of(str(self._client.project(self._id)["label_config"]), settings).query_control is None

    def connect(self, extra_params: Mapping[str, Any] | None = None, *, add_query_control: bool = False) -> list[str]:
        """Make the project ready; return what was changed (empty when all was in place).

        Args:
            extra_params: settings of this project, laid over those that Label Studio keeps with the backend; None as a
                value takes one back.
            add_query_control: give the labelling configuration a control for queried regions if it has none.

        Raises:
            ConfigurationError: the backend's address cannot work, or a setting is invalid.
            LabelConfigError: the labelling configuration has no control that can hold a mask.
            LabelStudioError: the host refused a step, or undoes it; it says which, and why.
        """
        from ml_backend.learning.networks import (
            check_network,  # takes torch with it, which `nextmask doctor` does without
        )

        self._changes = []
        self._check_address()
        backends = self._backends()
        params = _merged(backends[0].get("extra_params") if backends else None, extra_params or {})
        settings = self._settings.for_project(params)
        make_strategy(settings.strategy, settings.strategy_options)
        check_network(settings.architecture, settings.encoder, settings.network_options)
        project = self._client.project(self._id)
        xml = str(project["label_config"])
        label_map_of(xml, settings)
        if self._store.project(self._id) is None:
            # Known, but not yet to be worked on: its settings reach the host further down.
            self._store.wake(self._id, managed=False)
        self._remember({field: project.get(field) for field in _PROJECT_FIELDS})
        self._change_config(xml, settings, add_query_control=add_query_control)
        self._register_backend(backends, params)
        self._register_webhook()
        self._set_project_fields(project)
        self._add_tab()
        self._set_project_fields(self._client.project(self._id), again=True)
        if settings.stream_rate:
            self._changes += show_passed_over(self._client, self._id)
        self._store.wake(self._id, manage=True)
        self._tell("connected")
        return self._changes

    def _tell(self, kind: str) -> None:
        if self._changes:
            text = re.sub(r"//[^/@\s]+@", "//", "; ".join(self._changes))  # addresses may hold a password
            self._store.add_event(self._id, kind, f"{kind.capitalize()}: {text}.")

    def _check_address(self) -> None:
        host = self._url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]
        if "." not in host and not host.startswith("["):
            raise ConfigurationError(
                f"NEXTMASK_BACKEND_URL = {self._url!r}: Label Studio accepts no webhook to a host name without a dot."
                " Use an IP address or a dotted alias such as nextmask.local."
            )

    def _change_config(self, xml: str, settings: Settings, *, add_query_control: bool) -> None:
        changed, changes = xml, []
        if labels_without_colours(xml):
            changed = with_palette(xml)
            changes.append("gave colours to labels that had none (Label Studio paints those alike)")
        if add_query_control and label_map_of(xml, settings).query_control is None:
            changed = with_query_control(changed, query_control=settings.query_control)
            changes.append(f"added the control {settings.query_control!r} for the regions that are asked for")
        if not changes:
            return
        undo = self._undo()
        # What was there before any connect is what comes back, unless a person has changed the configuration since.
        before = undo["label_config"] if xml in _made_by_us(undo) else xml
        # Both: a run that is killed right after this leaves the earlier one in place.
        noted = {**undo, "label_config": before, "coloured_from": xml, "coloured_config": changed}
        self._store.update_project(self._id, undo=json.dumps(noted))
        self._client.update_project(self._id, label_config=changed)
        self._changes += changes

    def _register_backend(self, own: list[dict[str, Any]], params: Mapping[str, Any]) -> None:
        fields: dict[str, Any] = {"project": self._id, "url": self._url, "title": BACKEND_TITLE, **self._credentials()}
        fields["extra_params"] = dict(params)
        # The host's listing has just called /setup: where that failed, the address or the password has changed.
        unreachable = bool(own) and own[0].get("state") not in _REACHED
        changes = self._change_backends(own, fields, anew=unreachable)
        self._changes += changes
        if changes:
            # What was only added is no older than any listing. There may be two, though: Label Studio on SQLite carries
            # a call out again when its database was locked half-way.
            self._settle(lambda: self._change_backends(self._backends(), fields), at_once=not own)

    def _change_backends(
        self, own: list[dict[str, Any]], fields: Mapping[str, Any], *, anew: bool = False
    ) -> list[str]:
        """Leave one registration, with these settings; return what was changed."""
        if not own:
            self._client.add_ml_backend(**fields)
            return [f"registered the backend {self._url}"]
        changes, params = [], fields["extra_params"]
        is_same = _object(own[0].get("extra_params")) == params and same_address(own[0].get("url"), self._url)
        if anew or not is_same:
            self._client.update_ml_backend(int(own[0]["id"]), **fields)
            changes.append(f"registered the backend anew: {self._url}, settings {json.dumps(params)}")
        for row in own[1:]:
            self._client.delete_ml_backend(int(row["id"]))
            changes.append("removed a second registration of nextmask")
        return changes

    def _remove_backends(self) -> list[str]:
        """Remove all our registrations; return what was changed."""
        own = self._backends()
        for row in own:
            self._client.delete_ml_backend(int(row["id"]))
        return [f"removed the backend {row['url']}" for row in own]

    def _settle(self, mend: Callable[[], list[str]], *, at_once: bool = False) -> None:
        """Change registrations again until that lasts.

        Label Studio saves each of them whole at the end of a listing, in which it calls their /health and /setup: one
        that began before a change brings back what was deleted meanwhile, and the settings of before.

        Args:
            mend: changes what is not as it should be, and returns that.
            at_once: look without a pause first.

        Raises:
            LabelStudioError: it does not last.
        """
        for _ in range(_SETTLE_TRIES):
            time.sleep(0.0 if at_once else max(SETTLE_SECONDS, 2 * self._listing_seconds))
            if not mend():
                return
            at_once = False
        raise LabelStudioError(
            f"Label Studio undoes each change of nextmask's registration in project {self._id}: something lists the"
            " project's models all the time, a page of its settings, say. Close it, and run this again."
        )

    def _backends(self) -> list[dict[str, Any]]:
        started = time.monotonic()
        rows = self._client.ml_backends(self._id)
        self._listing_seconds = time.monotonic() - started
        return self._own(rows, self._url)

    def _own(self, rows: list[dict[str, Any]], url: str) -> list[dict[str, Any]]:
        """Rows of ours, those with today's address first: it may have moved since the last connect."""
        ours = [row for row in rows if same_address(row.get("url"), url) or is_ours(row)]
        return sorted(ours, key=lambda row: not same_address(row.get("url"), url))

    def _credentials(self) -> dict[str, Any]:
        user, password = self._settings.basic_auth_user, self._settings.basic_auth_pass.get_secret_value()
        if not user:
            return {"auth_method": "NONE"}
        return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}

    def _register_webhook(self) -> None:
        url = f"{self._url}/webhook"
        wanted: dict[str, Any] = {
            "project": self._id,
            "url": url,
            "send_payload": True,
            "send_for_all_actions": False,
            "is_active": True,
            "headers": {SECRET_HEADER: self._secret},
            "actions": list(WEBHOOK_ACTIONS),
        }
        ours = self._own(self._client.webhooks(self._id), url)
        if not ours:
            self._client.add_webhook(**wanted)
            self._changes.append("registered the webhook")
            return
        # Registering a backend makes Label Studio add a webhook of its own: all events, and no secret.
        if any(_comparable(ours[0].get(key)) != _comparable(value) for key, value in wanted.items()):
            self._client.update_webhook(int(ours[0]["id"]), **wanted)
            self._changes.append("gave the webhook its secret and the events that matter")
        for row in ours[1:]:
            self._client.delete_webhook(int(row["id"]))
            self._changes.append("removed a doubled webhook")

    def _set_project_fields(self, before: Mapping[str, Any], *, again: bool = False) -> None:
        """Let the order be the queue's, and predictions be shown.

        Args:
            again: look whether that lasted. Label Studio saves a project whole, and the worker, whom the registration
                woke, may have written its version in the same moment.
        """
        wanted = {"sampling": UNCERTAINTY_SAMPLING, "show_collab_predictions": True}
        missing = {field: value for field, value in wanted.items() if before.get(field) != value}
        if not missing:
            return
        self._client.update_project(self._id, **missing)
        if not again:
            names = {"sampling": "task order set to uncertainty sampling"}
            self._changes += [names.get(field, "predictions are shown in the editor") for field in missing]

    def _add_tab(self) -> None:
        wanted, views = tab_data(), self._client.views(self._id)
        ours = [view for view in views if title_of(view) == TAB_TITLE]
        if not ours:
            self._client.add_view(self._id, wanted)
            self._changes.append(f"added the tab {TAB_TITLE!r}")
            if not views:
                self._add_all_tasks_tab()
        elif ours[0]["data"].get("ordering") != wanted["ordering"]:
            self._client.update_view(int(ours[0]["id"]), self._id, {**ours[0]["data"], **wanted})
            self._changes.append(f"put the tab {TAB_TITLE!r} in order again")

    def _add_all_tasks_tab(self) -> None:
        """Make the tab that Label Studio no longer makes once ours is there: labelled tasks are found nowhere else."""
        added = self._client.add_view(self._id, all_tasks_tab())
        self._remember({"all_tasks_tab": added["id"]})

    # -- disconnect ---------------------------------------------------------------------------------------------------
    def disconnect(self) -> list[str]:
        """Put back what was there before `connect`; return what was changed.

        Predictions stay: deleting one while its task is open would make that annotator's Submit fail. Annotations are
        never touched.
        """
        self._changes = []
        undo = self._undo()
        self._stop_work()
        if removed := self._remove_backends():
            self._changes += removed
            self._settle(self._remove_backends)
        for row in self._own(self._client.webhooks(self._id), f"{self._url}/webhook"):
            self._client.delete_webhook(int(row["id"]))
            self._changes.append(f"removed the webhook to {row['url']}")
        for view in self._client.views(self._id):
            untouched = view["id"] == undo.get("all_tasks_tab") and view["data"] == all_tasks_tab()
            if title_of(view) in (TAB_TITLE, PASSED_TAB_TITLE) or untouched:
                self._client.delete_view(int(view["id"]))
                self._changes.append(f"removed the tab {title_of(view)!r}")
        self._restore_project(undo)
        self._store.update_project(self._id, undo="", state="waiting", error="")
        self._tell("disconnected")
        return self._changes

    def _stop_work(self) -> None:
        """Make a worker that is at it leave, and wait until it has: what it wrote later would stay."""
        # The state keeps /setup, which the host calls while its backends are listed, from taking the project up again.
        stopped = {"managed": False, "state": DISCONNECTING}
        self._store.update_project(self._id, **stopped)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self._is_worked_on() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._store.update_project(self._id, **stopped)  # again: the worker showed its own state until it left

    def _is_worked_on(self) -> bool:
        project = self._store.project(self._id)
        return project is not None and bool(project.lease_owner) and (project.lease_expires or 0) > time.time()

    def _restore_project(self, undo: Mapping[str, Any]) -> None:
        project = self._client.project(self._id)
        fields = {name: undo[name] for name in _PROJECT_FIELDS if name in undo and undo[name] != project.get(name)}
        if project.get("label_config") in _made_by_us(undo) - {undo.get("label_config")}:
            fields["label_config"] = undo["label_config"]
        for name, value in fields.items():
            try:
                self._client.update_project(self._id, **{name: "" if value is None else value})
                self._changes.append(f"{name} is {value!r} again" if name != "label_config" else "labels as before")
            except LabelStudioError as error:
                if name == "label_config" and error.status == _BAD_REQUEST:
                    self._changes.append(f"the labels stay as they are, since annotations use them ({error})")
                    continue
                # An old model_version is refused once its predictions are gone; then none is the nearest thing.
                if name != "model_version":
                    raise
                self._client.update_project(self._id, model_version="")
                self._changes.append(f"model_version is empty: {value!r} is refused ({error})")

    # -- parts --------------------------------------------------------------------------------------------------------
    def _undo(self) -> dict[str, Any]:
        project: Project | None = self._store.project(self._id)
        return dict(json.loads(project.undo)) if project and project.undo else {}

    def _remember(self, found: Mapping[str, Any]) -> None:
        """Note what was there; what an earlier connect noted stays."""
        self._store.update_project(self._id, undo=json.dumps({**found, **self._undo()}))


def _made_by_us(undo: Mapping[str, Any]) -> set[object]:
    """Return the labelling configurations that `connect` left behind."""
    return {undo[name] for name in ("coloured_from", "coloured_config") if name in undo}


def _comparable(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value


def _merged(kept: object, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changed settings over those kept in Label Studio; None takes a setting back."""
    return {name: value for name, value in {**_object(kept), **changes}.items() if value is not None}


def _object(extra_params: object) -> dict[str, Any]:
    """Read settings as the host keeps them: whatever was typed in there, as an object or as its text."""
    if isinstance(extra_params, str):
        try:
            extra_params = json.loads(extra_params)
        except ValueError:
            return {}
    return dict(extra_params) if isinstance(extra_params, Mapping) else {}
