"""The state: what is known of each project, and who works on it.

Everything here can be rebuilt from Label Studio and the checkpoints, so the database is never the only place of
something a person made. It holds what makes a reconcile cheap (which tasks changed), what makes it safe (leases), and
what was published (to measure what annotators changed).

    database      opens it; `migrations` makes and upgrades its schema
    tables        the tables, and their rows as dataclasses
    connections   transactions, notes, counts, and a clock that nobody can set
    projects, tasks, rankings, decisions, publications, events   reads and writes, a module each
    store         all of them together

SQLAlchemy Core on SQLite in WAL mode; PostgreSQL by its address. Rows leave this module as frozen dataclasses.
"""

from ml_backend.store.store import Store, file_name
from ml_backend.store.tables import GONE, Decision, Event, Label, Lease, Project, QueueEntry, Task

__all__ = ["GONE", "Decision", "Event", "Label", "Lease", "Project", "QueueEntry", "Store", "Task", "file_name"]
