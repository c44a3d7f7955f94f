"""The steps from each schema of the state database to the next, as Alembic revisions in `versions`.

A new database takes all of them. A step is never changed once it was released: what comes later is another step, named
`vNNNN_what.py`, and `database.REVISION` names the last one. A test compares what the steps make with `tables`.
"""
