"""The steps from each schema of the state database to the next, as Alembic revisions in `versions`.

A new database runs all of them. A released step never changes: a later change is another step, named `vNNNN_what.py`,
and `database.REVISION` names the last. A test compares the schema that the steps make with `tables`.
"""
