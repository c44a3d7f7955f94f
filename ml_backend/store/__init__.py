"""The state database: projects and their tasks, rankings and publications.

All of it can be rebuilt from Label Studio and the checkpoints, so nothing that a person made is in the database alone.
It holds what makes a look cheap (which tasks changed), what makes it safe (leases), and what was published (to measure
what annotators changed).

    store         the class Store: all reads and writes together
    projects, tasks, rankings, behind, decisions, publications, devices, events   reads and writes by subject
    transactions  transactions, values and counters by key, and a clock that nobody can set
    tables        the tables, and their rows as dataclasses
    database      opens the database; `migrations` makes and upgrades its schema, `migrate` runs them
    backup        archives of MODEL_DIR, and their restore

SQLAlchemy Core on SQLite in WAL mode, or PostgreSQL. Rows leave this package as frozen dataclasses.
"""

from ml_backend.store.store import Store, file_name
from ml_backend.store.tables import (
    GONE,
    NO_LABEL,
    AnnotatorLabels,
    Behind,
    Decision,
    DeviceLease,
    Event,
    Label,
    Lease,
    Project,
    QueueEntry,
    Side,
    Task,
    TrainingLabel,
)

__all__ = [
    "GONE",
    "NO_LABEL",
    "AnnotatorLabels",
    "Behind",
    "Decision",
    "DeviceLease",
    "Event",
    "Label",
    "Lease",
    "Project",
    "QueueEntry",
    "Side",
    "Store",
    "Task",
    "TrainingLabel",
    "file_name",
]
