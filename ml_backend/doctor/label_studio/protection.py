"""Whether Label Studio allows backends and webhooks at the address of nextmask.

That is asked with requests that are invalid in another field besides: Label Studio checks every field and then
refuses, whether the address would have been good or not, so that nothing is registered and nobody is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.errors import LabelStudioError
from ml_backend.label_studio import LabelStudio


def check_protections(client: LabelStudio, backend_url: str) -> Iterator[Finding]:
    """Say whether Label Studio allows backends and webhooks at an address. Changes nothing there.

    Args:
        backend_url: the address, without a slash at its end.
    """
    fields = {"ML_BLOCK_LOCAL_IP": _refusal(client, "/api/ml/", {"url": backend_url, "auth_method": "no such method"})}
    hook = {"url": f"{backend_url}/webhook", "actions": ["NO_SUCH_ACTION"]}
    fields["SSRF_PROTECTION_ENABLED"] = _refusal(client, "/api/webhooks/", hook)
    unknown = next((text for text in fields.values() if "resolve" in text and "reserved" not in text), "")
    blocked = [name for name, text in fields.items() if text and text != unknown]
    if unknown:
        message = f"Label Studio cannot find the host of NEXTMASK_BACKEND_URL = {backend_url}: {unknown}"
        remedy = "Set NEXTMASK_BACKEND_URL to an address that works where Label Studio runs"
        yield problem("protection", message, "It can neither call nextmask nor send webhooks to it.", remedy)
    if blocked:
        message = f"Label Studio blocks {backend_url}: {' and '.join(blocked)} {'are' if len(blocked) > 1 else 'is'} on"
        effects = {"ML_BLOCK_LOCAL_IP": "no backend is accepted there", "SSRF_PROTECTION_ENABLED": "no webhook"}
        why = f"With it, {' and '.join(effects[name] for name in blocked)}: connect is refused (403)."
        settings = " ".join(f"{name}=false" for name in fields)
        yield problem("protection", message, why, f"Start Label Studio with both off: {settings} label-studio start")
    if not unknown and not blocked:
        yield ok("protection", f"Label Studio allows backends and webhooks at {backend_url}")


def _refusal(client: LabelStudio, path: str, fields: dict[str, Any]) -> str:
    """Return why an address is not allowed; "" where it is. The other field is invalid, so nothing is ever made."""
    try:
        client.transport.json("POST", path, json=fields)
    except LabelStudioError as error:
        text = str(error).partition("answered")[2].partition(": ")[2]
        if error.status == 403:
            return text if "reserved" in text or "not allowed" in text else ""
        return text.rstrip(".") if error.status == 500 and "resolve" in text else ""
    return ""
