"""What uploads reserve of their projects' quotas, and a row for each project to be locked.

MySQL and MariaDB cannot undo a CREATE or an ALTER: what a crash left half done is completed.
"""

import sqlalchemy as sa
from alembic import op

revision = "headrace_0002"
down_revision = "headrace_0001"

_LEASES, _QUOTAS = "headrace_uploads", "headrace_quotas"
_RESERVATIONS = ("reserved", "reserved_staging")


def upgrade() -> None:
    there = _columns()
    for name in _RESERVATIONS:
        if name not in there:
            op.add_column(_LEASES, sa.Column(name, sa.BigInteger))
    op.create_table(
        _QUOTAS,
        sa.Column("owner", sa.String(255), primary_key=True),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8",
    )


def downgrade() -> None:
    op.drop_table(_QUOTAS, if_exists=True)
    there = _columns()
    for name in _RESERVATIONS:
        if name in there:
            op.drop_column(_LEASES, name)


def _columns() -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(_LEASES)}
