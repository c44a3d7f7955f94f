"""Run by Alembic: its commands here work on the connection, and in the transaction, that the caller has opened."""

from alembic import context

from ml_backend.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # Theirs would commit after each step where it thinks that the database could do no better; ours is around all.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
