"""Glance's tables, of which this is the first revision here: older databases are Glance's to lift.

The tables come from db.schema, which is frozen at this head; a later head of Glance's adds its
revision to the chain and moves the definitions here.
"""

from alembic import op

from headrace.db import schema

revision = "2024_1_expand01"
down_revision = None


def upgrade() -> None:
    schema.GLANCE.create_all(op.get_bind())
