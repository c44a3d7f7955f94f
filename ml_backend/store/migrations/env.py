"""Run by Alembic: commands work on the connection, and in the transaction, of the caller."""

from alembic import context

from ml_backend.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # Otherwise Alembic would commit after each step on SQLite; the transaction of the caller is around all steps.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
