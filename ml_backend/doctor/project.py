"""What belongs to one project: what Label Studio holds of it, against what `nextmask connect` sets up.

`read` asks Label Studio and the state once; everything else is a function of what they said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ml_backend.annotations.config_edits import labels_without_colours
from ml_backend.annotations.label_map import label_map_of
from ml_backend.doctor.findings import Finding, Level, note, ok, problem, warning
from ml_backend.doctor.label_studio import FAST_IMPORT_FLAG, LARGE_PROJECT
from ml_backend.doctor.running import Missing
from ml_backend.errors import ConfigurationError, ImageError, LabelConfigError, NextmaskError
from ml_backend.images.decoding import SNIFFED_BYTES, kind_of
from ml_backend.images.references import in_project, shown_reference
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.connection import UNCERTAINTY_SAMPLING
from ml_backend.projects.registration import SECRET_HEADER, WEBHOOK_ACTIONS, is_ours, same_address
from ml_backend.projects.tabs import TAB_TITLE, title_of
from ml_backend.settings import Settings
from ml_backend.store import Project
from strategies import catalogue

Json = dict[str, Any]
T = TypeVar("T")

SAMPLED: Final = 3
_SHOWN_PROJECTS = 10


@dataclass(frozen=True)
class Facts:
    """A project as Label Studio and the state have it.

    Attributes:
        project: as Label Studio has it.
        backends, webhooks, views: its rows; None where they could not be read, for the reason in `unread`.
        predictions: how many there are, by model version; None likewise.
        known: the project in the state; None where it was never connected from here.
        tested: the settings of the project; those of the installation where they are invalid.
        fault: what is invalid in them.
    """

    project: Json
    backends: list[Json] | None
    webhooks: list[Json] | None
    views: list[Json] | None
    predictions: dict[str, int] | None
    known: Project | None
    tested: Settings
    fault: str
    unread: str = ""

    @property
    def id(self) -> int:
        """Number of the project."""
        return int(self.project["id"])

    @property
    def mend(self) -> str:
        """The command that mends what is about the connection."""
        return f"nextmask connect {self.id}"


def read(client: LabelStudio, project_id: int, known: Project | None, settings: Settings) -> Facts:
    """Ask for all there is to know of a project.

    Label Studio calls each backend of the project before it lists them, as it does whenever its settings are opened.

    Raises:
        LabelStudioError: the project itself cannot be read.
    """
    unread: list[str] = []

    def attempt(get: Callable[[int], T]) -> T | None:
        try:
            return get(project_id)
        except NextmaskError as error:
            unread.append(str(error))
            return None

    project = client.project(project_id)
    backends = attempt(client.ml_backends)
    ours = [row for row in backends or [] if _own(row, settings)]
    params = ours[0].get("extra_params") if ours else (known.extra_params if known else None)
    try:
        tested, fault = settings.for_project(params), ""
    except ConfigurationError as error:
        tested, fault = settings, str(error)
    return Facts(
        project,
        backends,
        attempt(client.webhooks),
        attempt(client.views),
        attempt(client.model_versions),
        known,
        tested,
        fault,
        "; ".join(unread),
    )


def _own(row: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a backend or webhook is ours: by its address, its title or its header."""
    base = str(row.get("url") or "").removesuffix("/").removesuffix("/webhook")
    return is_ours(row) or same_address(base, settings.effective_backend_url)


def judge_project(facts: Facts, settings: Settings, secret: str, *, fast_import: bool | None) -> Iterator[Finding]:
    """Yield all that is to be said of a project but its images.

    Args:
        secret: that our webhook is to carry; "" where none was made yet.
        fast_import: whether the host imports predictions the fast way; None where that is not known.
    """
    if facts.unread:
        yield problem("project", f"Label Studio did not answer in full: {facts.unread}", "", "Try again")
    yield from _judge_connected(facts, settings)
    yield from _judge_backends(facts, settings)
    yield from _judge_webhooks(facts, settings, secret)
    yield from _judge_order(facts)
    yield from _judge_version(facts)
    yield from _judge_labels(facts)
    yield from _judge_size(facts, fast_import)


def missing_project(client: LabelStudio, project_id: int) -> Finding:
    """Say that there is no such project, and which ones there are."""
    rows = client.projects()
    there = ", ".join(f"{row['id']} ({row['title']})" for row in rows[:_SHOWN_PROJECTS]) or "none"
    found = f"The user of LABEL_STUDIO_API_KEY sees no project {project_id}"
    why = "It was deleted, or belongs to another organization; the number is the one in its address."
    return problem("project", found, why, f"Name one of those it sees: {there}")


def deleted(known: Project) -> Finding:
    """Say that a connected project is gone."""
    found = f"project {known.id} ({known.title}): the user of LABEL_STUDIO_API_KEY sees no such project"
    why = "It was deleted, or belongs to another organization. Model versions stay on disk."
    return warning("project", found, why, "Nothing is to be done if it was deleted; else use the token of a member")


# -- connection ------------------------------------------------------------------------------------------------------
def _judge_connected(facts: Facts, settings: Settings) -> Iterator[Finding]:
    known = facts.known
    if known is None or not known.managed:
        found = f"Project {facts.id} is not connected from here (MODEL_DIR = {settings.model_dir})"
        yield problem("connection", found, "No worker looks after it: nothing is trained or ranked.", facts.mend)
        return
    if known.error:
        remedy = f"nextmask status {facts.id} tells more; docs/troubleshooting.md explains messages"
        yield problem("state", known.error, "The last look at the project failed.", remedy)
    elif known.train_error:
        why = "The version before it serves on; labelling can go on."
        yield problem("state", known.train_error, why, f"Then: nextmask train {facts.id}")
    else:
        yield ok("state", f"{known.state}, version {known.published_version or 'none yet'}")


def _judge_backends(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if facts.backends is None:
        return
    ours = [row for row in facts.backends if _own(row, settings)]
    if not ours:
        others = ", ".join(str(row.get("url")) for row in facts.backends)
        found = f"nextmask is not registered as a model{f'; there is {others}' if others else ''}"
        yield problem("backend", found, "No task is pre-filled on demand, and no setting reaches nextmask.", facts.mend)
        return
    row = ours[0]
    if facts.backends[0] not in ours:
        found = f"{facts.backends[0].get('url')} ({facts.backends[0].get('title')}) stands before nextmask"
        why = "Label Studio asks a project's first model only."
        page = f"{settings.label_studio_url}/projects/{facts.id}/settings/ml"
        yield problem("backend", found, why, f"Disconnect the other one ({page}), then: {facts.mend}")
    if len(ours) > 1:
        found = f"nextmask is registered {len(ours)} times: {', '.join(str(row.get('url')) for row in ours)}"
        yield problem("backend", found, "Label Studio calls each of them at every listing.", facts.mend)
    wanted = settings.effective_backend_url
    if not any(same_address(row.get("url"), wanted) for row in ours):
        found = f"nextmask is registered at {row.get('url')}, and its address is {wanted}"
        yield problem("backend", found, "Label Studio calls the old address.", facts.mend)
    elif row.get("state") in ("DI", "ER"):
        yield _unreachable(facts, row)
    elif len(ours) == 1 and facts.backends[0] in ours:
        yield ok("backend", f"Label Studio reaches nextmask at {row.get('url')}")
    if facts.fault:
        why = "The last valid settings stand in for them."
        yield problem("settings", facts.fault, why, f"{facts.mend} --set KEY=VALUE, or --set KEY=null to take one back")


def _unreachable(facts: Facts, row: Json) -> Finding:
    said = " ".join(str(row.get("error_message") or "").split())
    why = "No task is pre-filled on demand; the queue that is published stays."
    if "401" in said:
        found = "nextmask refuses Label Studio's calls (401): it was registered with another password"
        return problem("backend", found, why, facts.mend)
    detail = f": {said[:200]}" if said and row.get("state") == "ER" else ""
    found = f"Label Studio cannot reach nextmask at {row.get('url')} (state {row.get('readable_state')}){detail}"
    remedy = (
        "Start nextmask serve; where it runs, see whether this works on Label Studio's machine, or in its container: "
        f"curl {row.get('url')}/health. If not, set NEXTMASK_BACKEND_URL to an address that does, then: {facts.mend}"
    )
    return problem("backend", found, why, remedy)


def _judge_webhooks(facts: Facts, settings: Settings, secret: str) -> Iterator[Finding]:
    if facts.webhooks is None:
        return
    ours = [row for row in facts.webhooks if _own(row, settings)]
    wanted = f"{settings.effective_backend_url}/webhook"
    late = f"New labels are seen by the timer only, after up to {settings.reconcile_seconds:g} s."
    faults = list(_webhook_faults(ours[0], wanted, secret)) if ours else []
    if not ours:
        yield problem("webhook", f"There is no webhook to {wanted}", late, facts.mend)
    if len(ours) > 1:
        found = f"{len(ours)} webhooks lead to nextmask: {', '.join(str(row['url']) for row in ours)}"
        yield problem("webhook", found, "Each is sent within the annotator's Submit, which waits for all.", facts.mend)
    for found, why in faults:
        yield problem("webhook", found, why or late, facts.mend)
    if len(ours) == 1 and not faults:
        yield ok("webhook", f"one, to {wanted}, with its secret")


def _webhook_faults(row: Json, wanted: str, secret: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a webhook, and why that matters where it is not what matters of all."""
    headers = row.get("headers") or {}
    if not same_address(row.get("url"), wanted):
        yield f"The webhook leads to {row.get('url')}, and should to {wanted}", ""
    if not row.get("is_active"):
        yield "The webhook is inactive", ""
    if SECRET_HEADER not in headers:
        yield f"The webhook has no header {SECRET_HEADER}", "nextmask refuses it where BASIC_AUTH_USER is set."
    elif headers[SECRET_HEADER] != secret:
        yield f"The webhook's {SECRET_HEADER} is not the secret of this MODEL_DIR", "nextmask refuses it."
    actions = set(row.get("actions") or [])
    if row.get("send_for_all_actions"):
        yield "The webhook is sent for every event", "Each is sent within the annotator's Submit, which waits for it."
    elif missing := [action for action in WEBHOOK_ACTIONS if action not in actions]:
        yield f"The webhook is not sent for {', '.join(missing)}", ""
    if not row.get("send_payload"):
        yield "The webhook is sent without its payload", "nextmask cannot tell which project it is about."


# -- order of the tasks ----------------------------------------------------------------------------------------------
def _judge_order(facts: Facts) -> Iterator[Finding]:
    project = facts.project
    sampling, annotations = project.get("sampling"), int(project.get("maximum_annotations") or 1)
    if sampling != UNCERTAINTY_SAMPLING:
        found = f"The project's task order is {sampling!r}, not {UNCERTAINTY_SAMPLING!r}"
        why = "The ranking is not followed. (Label Studio's settings page offers this order in the Enterprise edition "
        yield problem("sampling", found, f"{why}only, and its API everywhere.)", facts.mend)
    else:
        yield ok("sampling", f"task order is {sampling!r}")
    if not project.get("show_collab_predictions"):
        found = "Predictions are not shown to annotators (show_collab_predictions is off)"
        yield problem("predictions", found, "Every mask is drawn from nothing.", facts.mend)
    if annotations > 1:
        found = f"The project asks for {annotations} annotations per task (maximum_annotations)"
        why = "Label Studio serves tasks that are annotated in part before all others: that beats the ranking."
        remedy = (
            "If one annotation per task is enough, set maximum_annotations to 1 through the API: "
            f'PATCH /api/projects/{facts.id}/ {{"maximum_annotations": 1}}'
        )
        yield warning("annotations", found, why, remedy)
    if facts.views is not None and not any(title_of(view) == TAB_TITLE for view in facts.views):
        yield warning("tab", f"The tab {TAB_TITLE!r} is gone", "Nobody sees what comes next.", facts.mend)


def _judge_version(facts: Facts) -> Iterator[Finding]:
    version, counts = str(facts.project.get("model_version") or ""), facts.predictions
    published = facts.known.published_version if facts.known and facts.known.managed else ""
    if counts is None:
        return
    titles = [row.get("title") for row in facts.backends or []]
    why = "Tasks come in random order, and stored masks are not shown."
    back = f"nextmask serve sets it at its next look; at once: nextmask rank {facts.id}"
    if not version:
        if published:
            found = f"The project's model version is not set; it should be {published}"
            yield problem("model version", found, why, back)
        else:
            found = "The project has no model version yet"
            yield note("model version", f"{found}: the worker sets it when it publishes the first queue")
    elif version in titles:
        found = f"The project's model version is {version!r}, the title of a model and no version"
        yield problem("model version", f"{found}; it should be {published or 'one of nextmask'}", why, back)
    elif not counts.get(version):  # the host lists the current one with a count of 0
        found = f"The project's model version is {version!r}, and no prediction is of that version"
        yield problem("model version", found, why, back)
    elif published and version != published:
        found = f"The project's model version is {version!r}, and nextmask has published {published}"
        yield problem("model version", found, why, back)
    else:
        yield ok("model version", f"{version}, with {counts[version]} predictions")


# -- labels ----------------------------------------------------------------------------------------------------------
def _judge_labels(facts: Facts) -> Iterator[Finding]:
    xml, settings = str(facts.project.get("label_config") or ""), facts.tested
    page = f"{settings.label_studio_url}/projects/{facts.id}/settings/labeling"
    try:
        label_map = label_map_of(xml, settings)
        bare = labels_without_colours(xml)
    except LabelConfigError as error:
        why = "nextmask cannot read or predict any mask here."
        yield problem("labels", _sentence(str(error)), why, f"Change the labelling configuration: {page}")
        return
    if label_map.writer_of(1 if label_map.unpainted_index == 0 else 0) is None:
        found = "No control of the labelling configuration can hold a predicted mask"
        why = "Predictions need BrushLabels, BitmaskLabels or PolygonLabels."
        yield warning("labels", found, why, f"Add one of them: {page}")
    if bare:
        found = "Labels have no colour of their own (attribute background)"
        yield warning("colours", found, "Label Studio paints them alike: classes cannot be told apart.", facts.mend)
    if catalogue.described(settings.strategy).asks_for_regions and label_map.query_control is None:
        found = f"Strategy {settings.strategy} asks for regions, and no control {settings.query_control!r} shows them"
        yield warning("regions", found, "Whole images are asked for.", f"{facts.mend} --add-query-control")
    yield ok("labels", f"{len(label_map.classes)} classes: {', '.join(label_map.classes[:8])}")


def _judge_size(facts: Facts, fast_import: bool | None) -> Iterator[Finding]:
    tasks = int(facts.project.get("task_number") or 0)
    if tasks == 0:
        yield note("tasks", "The project has no task yet", "There is nothing to rank.", "Import images in Label Studio")
    if tasks < LARGE_PROJECT or fast_import:
        return
    found = f"{tasks} tasks, and Label Studio imports predictions in a way whose time grows with them"
    if fast_import is None:
        found = f"{tasks} tasks; whether Label Studio imports predictions the fast way is not told to legacy tokens"
    why = "Publishing a queue takes from seconds to a minute in large projects."
    yield note("imports", found, why, f"Start Label Studio with {FAST_IMPORT_FLAG}=true")


# -- images ----------------------------------------------------------------------------------------------------------
def judge_images(client: LabelStudio, facts: Facts) -> Iterator[Finding]:
    """Fetch the beginning of a few images, as the worker would."""
    settings = facts.tested
    try:
        label_map = label_map_of(str(facts.project.get("label_config") or ""), settings)
    except LabelConfigError:
        raise Missing("the labelling configuration names no image") from None
    # The first and the newest: what was imported last is where a storage or a bucket has changed.
    tasks = client.some_tasks(facts.id, SAMPLED)
    if not tasks:
        raise Missing("the project has no task yet")
    faults = []
    for task in tasks:
        reference = label_map.image_reference(task.get("data") or {})
        try:
            if reference is None:
                raise ImageError(f"The task's data has no image under {label_map.image_variable!r}.")
            _fetch_beginning(client, in_project(reference, facts.id))
        except ImageError as error:
            faults.append((task["id"], reference or "", str(error)))
    if not faults:
        yield ok("images", f"{len(tasks)} of {facts.project.get('task_number')} were fetched")
        return
    number, reference, reason = faults[0]
    found = f"{len(faults)} of {len(tasks)} images that were tried cannot be had; task {number}: {reason}"
    why = "Tasks without an image are left out of training and ranking."
    yield problem("images", found, why, _image_remedy(settings, facts.id, reference))


def _fetch_beginning(client: LabelStudio, reference: str) -> None:
    if reference.startswith("data:"):
        return
    with client.fetch(reference) as chunks:
        start = b""
        for chunk in chunks:
            start += chunk
            if len(start) >= SNIFFED_BYTES:
                break
    kind_of(start[:SNIFFED_BYTES], shown_reference(reference))


def _image_remedy(settings: Settings, project_id: int, reference: str) -> str:
    storage = f"{settings.label_studio_url}/projects/{project_id}/settings/storage"
    if reference.startswith("/data/local-files"):
        return f"Add a Local Files storage to this project whose path is that folder or one above it: {storage}"
    if reference.startswith("/data/upload"):
        return "Upload the images again: the files are gone from Label Studio's data folder"
    if reference.startswith(("http://", "https://")):
        shown = reference.partition("?")[0]
        return f"See what nextmask's machine gets: curl -I '{shown}'; credentials go to Label Studio only"
    return f"See whether the storage and its credentials are right, and press Sync: {storage}"


# -- helpers ---------------------------------------------------------------------------------------------------------
def in_short(facts: Facts, findings: Sequence[Finding]) -> Finding:
    """Return one line about a project in place of all of them."""
    title = f"project {facts.id} ({facts.project.get('title')})"
    bad = [one for one in findings if one.level in ("problem", "warning")]
    if not bad:
        return ok("project", f"{title}: {next((one.found for one in findings if one.check == 'state'), 'connected')}")
    worst: Level = "problem" if any(one.level == "problem" for one in bad) else "warning"
    found = f"{title}: {'; '.join(one.found for one in bad)}"
    return Finding(
        "project", worst, found, bad[0].why, f"nextmask doctor {facts.id} tells more; {facts.mend} mends most"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
