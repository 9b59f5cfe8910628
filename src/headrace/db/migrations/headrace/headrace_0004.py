"""In which stores an upload may have published something.

MySQL and MariaDB cannot undo an ALTER: what a crash left half done is completed.
"""

import sqlalchemy as sa
from alembic import op

revision = "headrace_0004"
down_revision = "headrace_0003"

_LEASES, _STORES = "headrace_uploads", "stores"


def upgrade() -> None:
    if not _is_there():
        op.add_column(_LEASES, sa.Column(_STORES, sa.Text))


def downgrade() -> None:
    if _is_there():
        op.drop_column(_LEASES, _STORES)


def _is_there() -> bool:
    return any(each["name"] == _STORES for each in sa.inspect(op.get_bind()).get_columns(_LEASES))
