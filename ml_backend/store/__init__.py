"""The state: what is known of each project, and who works on it.

Everything here can be rebuilt from Label Studio and the checkpoints, so the database is never the only place of
something a person made. It holds what makes a reconcile cheap (which tasks changed), what makes it safe (leases), and
what was published (to measure what annotators changed).

SQLAlchemy Core on SQLite in WAL mode; PostgreSQL by its address. Rows leave this module as frozen dataclasses.
"""

from ml_backend.store.store import Store, file_name
from ml_backend.store.tables import GONE, Decision, Event, Label, Lease, Project, QueueEntry, Task

__all__ = ["GONE", "Decision", "Event", "Label", "Lease", "Project", "QueueEntry", "Store", "Task", "file_name"]
