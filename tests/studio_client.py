"""What tests ask of Label Studio besides what nextmask asks of it."""

from __future__ import annotations

from typing import Any

from ml_backend.label_studio import LabelStudio

Json = dict[str, Any]


class StudioClient(LabelStudio):
    """The client of nextmask, which can also take back, change and look up what people do."""

    def release(self) -> str:
        return str(self.transport.json("GET", "/api/version")["release"])

    def delete_project(self, project_id: int) -> None:
        self.transport.json("DELETE", f"/api/projects/{project_id}/")

    def task(self, task_id: int) -> Json:
        """One task with its annotations and predictions, masks included.

        For a task without predictions, Label Studio calls the connected backend's /predict before it answers.
        """
        task: Json = self.transport.json("GET", f"/api/tasks/{task_id}/", params={"resolve_uri": "false"})
        return task

    def annotation(self, annotation_id: int) -> Json:
        annotation: Json = self.transport.json("GET", f"/api/annotations/{annotation_id}/")
        return annotation

    def update_annotation(self, annotation_id: int, **fields: Any) -> Json:
        annotation: Json = self.transport.json("PATCH", f"/api/annotations/{annotation_id}/", json=fields)
        return annotation

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation; of a skip, this takes the skip back."""
        self.transport.json("DELETE", f"/api/annotations/{annotation_id}/")
