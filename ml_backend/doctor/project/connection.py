"""Whether a project is connected: its state here, and nextmask's backend and webhook in Label Studio."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.annotations.label_map import label_map_of
from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.doctor.project.facts import Facts, Json, is_own
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.failures import in_words
from ml_backend.projects.registration import SECRET_HEADER, WEBHOOK_ACTIONS, same_address
from ml_backend.projects.smart_tools import NO_AUTO_ANNOTATION, silent_text
from ml_backend.settings import Settings


def check_connection(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Say whether the project is connected from here, and whether the last look at it failed."""
    known = facts.known
    if known is None or not facts.is_connected:
        message = f"Project {facts.id} is not connected from here (MODEL_DIR = {settings.model_dir})"
        yield problem("connection", message, "No worker looks after it: nothing is trained or ranked.", facts.mend)
        return
    if known.error:
        remedy = f"nextmask status {facts.id} tells more; docs/troubleshooting.md explains the messages"
        yield problem("state", known.error, "The last look at the project failed.", remedy)
    elif known.train_error:
        why = "The version before it is still served; labelling can go on."
        yield problem("state", known.train_error, why, f"Then: nextmask train {facts.id}")
    else:
        yield ok("state", f"{known.state}, version {known.published_version or 'none yet'}")


def check_backends(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Say whether nextmask is registered once, as the first model, at its address, and reached; and its settings."""
    if facts.backends is None:
        return
    ours = [row for row in facts.backends if is_own(row, settings)]
    if not ours:
        others = ", ".join(str(row.get("url")) for row in facts.backends)
        message = f"nextmask is not registered as a model{f'; there is {others}' if others else ''}"
        yield problem(
            "backend", message, "No task is pre-filled on demand, and no setting reaches nextmask.", facts.mend
        )
        return
    row = ours[0]
    if facts.backends[0] not in ours:
        message = f"{facts.backends[0].get('url')} ({facts.backends[0].get('title')}) stands before nextmask"
        why = "Label Studio asks a project's first model only."
        page = f"{settings.effective_label_studio_public_url}/projects/{facts.id}/settings/ml"
        yield problem("backend", message, why, f"Disconnect the other one ({page}), then: {facts.mend}")
    if len(ours) > 1:
        message = f"nextmask is registered {len(ours)} times: {', '.join(str(row.get('url')) for row in ours)}"
        yield problem("backend", message, "Label Studio calls each of them at every listing.", facts.mend)
    wanted = settings.effective_backend_url
    if not any(same_address(row.get("url"), wanted) for row in ours):
        message = f"nextmask is registered at {row.get('url')}, and its address is {wanted}"
        yield problem("backend", message, "Label Studio calls the old address.", facts.mend)
    elif row.get("state") in ("DI", "ER"):
        yield _unreachable(facts, row)
    elif len(ours) == 1 and facts.backends[0] in ours:
        yield ok("backend", f"Label Studio reaches nextmask at {row.get('url')}")
    if facts.fault:
        why = "The last valid settings stand in for them."
        yield problem("settings", facts.fault, why, f"{facts.mend} --set KEY=VALUE, or --set KEY=null to take one back")


def check_smart_tools(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Say whether the smart tools of the labelling configuration ask nextmask; nothing where it has none."""
    ours = [row for row in facts.backends or [] if is_own(row, settings)]
    try:
        label_map = label_map_of(str(facts.project.get("label_config") or ""), facts.tested)
    except LabelConfigError:
        return
    if not label_map.smart_tools or not ours:
        return
    if any(row.get("is_interactive") for row in ours):
        yield ok("smart tools", f"{', '.join(map(repr, label_map.smart_tools))} ask nextmask")
        return
    yield problem("smart tools", silent_text(label_map.smart_tools), NO_AUTO_ANNOTATION, facts.mend)


def _unreachable(facts: Facts, row: Json) -> Finding:
    reported = " ".join(str(row.get("error_message") or "").split())
    why = "No task is pre-filled on demand; the queue that is published stays."
    if "401" in reported:
        message = "nextmask refuses Label Studio's calls (401): it was registered with another password"
        return problem("backend", message, why, facts.mend)
    detail = in_words(reported) or f"state {row.get('readable_state')}"
    message = f"Label Studio cannot reach nextmask at {row.get('url')} ({detail})"
    return problem("backend", message, why, f"Start nextmask serve; {_from_there(str(row.get('url')))}: {facts.mend}")


def out_of_reach(url: str) -> Finding:
    """Say that nextmask answers here, and Label Studio cannot reach it.

    Args:
        url: where it answers.
    """
    message = f"nextmask answers at {url} from this machine, and Label Studio cannot reach it there"
    why = "It calls nextmask before it accepts it as a model."
    return problem("backend", message, why, f"{_from_there(url).capitalize()}, connect again")


def _from_there(url: str) -> str:
    return (
        "where it runs, see whether this works on Label Studio's machine, or in its container: "
        f"curl {url}/health. If not, set NEXTMASK_BACKEND_URL to an address that does, then"
    )


def check_webhooks(facts: Facts, settings: Settings, secret: str) -> Iterator[Finding]:
    """Say whether there is one webhook to nextmask, active, for the right events, with the secret.

    Args:
        secret: that it is to carry; "" where none was made yet.
    """
    if facts.webhooks is None:
        return
    ours = [row for row in facts.webhooks if is_own(row, settings)]
    wanted = f"{settings.effective_backend_url}/webhook"
    late = f"New labels are seen by the timer only, after up to {settings.reconcile_seconds:g} s."
    faults = list(_webhook_faults(ours[0], wanted, secret)) if ours else []
    if not ours:
        yield problem("webhook", f"There is no webhook to {wanted}", late, facts.mend)
    if len(ours) > 1:
        message = f"{len(ours)} webhooks lead to nextmask: {', '.join(str(row['url']) for row in ours)}"
        yield problem("webhook", message, "The annotator's Submit waits for each of them.", facts.mend)
    for fault, why in faults:
        yield problem("webhook", fault, why or late, facts.mend)
    if len(ours) == 1 and not faults:
        yield ok("webhook", f"one, to {wanted}, with its secret")


def _webhook_faults(row: Json, wanted: str, secret: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a webhook, and why that matters where it is not what matters of all."""
    headers = row.get("headers") or {}
    if not same_address(row.get("url"), wanted):
        yield f"The webhook leads to {row.get('url')} instead of {wanted}", ""
    if not row.get("is_active"):
        yield "The webhook is inactive", ""
    if SECRET_HEADER not in headers:
        yield f"The webhook has no header {SECRET_HEADER}", "nextmask refuses it where BASIC_AUTH_USER is set."
    elif headers[SECRET_HEADER] != secret:
        yield f"The webhook's {SECRET_HEADER} is not the secret of this MODEL_DIR", "nextmask refuses it."
    actions = set(row.get("actions") or [])
    if row.get("send_for_all_actions"):
        yield "The webhook is sent for every event", "The annotator's Submit waits for it each time."
    elif missing := [action for action in WEBHOOK_ACTIONS if action not in actions]:
        yield f"The webhook is not sent for {', '.join(missing)}", ""
    if not row.get("send_payload"):
        yield "The webhook is sent without its payload", "nextmask cannot tell which project it is about."
