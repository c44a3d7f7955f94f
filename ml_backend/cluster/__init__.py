"""Scoring and training on a Ray cluster, where NEXTMASK_RAY_ADDRESS names one.

    worker ── process ──▶ driver ── connection ──▶ the cluster: scoring, training
    (lease, database)     (a child process)        (stateless; nodes only return what they measured or trained)

The driver is a process of its own: Ray ends a process whose cluster is gone, and ending the driver is what cancels all
of its work, however far that is. Nothing here writes to the database or to Label Studio. Importing this package, or
`process`, takes no Ray.
"""
