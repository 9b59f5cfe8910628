"""The revision that a database at Glance's head carries; there is nothing to contract."""

revision = "2024_1_contract01"
down_revision = "2024_1_expand01"


def upgrade() -> None:
    """Nothing: a fresh database has no old columns."""
