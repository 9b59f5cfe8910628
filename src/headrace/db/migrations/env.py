"""How alembic runs a chain: on the connection and version table that db.migrate hands over.

The transaction is db.migrate's too: alembic believes that SQLite cannot undo DDL, and it can.
"""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table=context.config.attributes["version_table"],
    transactional_ddl=False,
)
context.run_migrations()
