"""A hint to SQLite's planner, which guesses where other databases keep statistics.

Without statistics (nobody runs ANALYZE on an embedded database) SQLite takes every index for
equally selective, and Glance's indexes on ``deleted`` hold nearly all rows under one key: reading
one image's properties then scans everybody's (28 ms instead of 0.05 with 300,000 properties).
"""

from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType


class unindexed(FunctionElement[bool]):
    """The condition it is given, but one that SQLite tests on rows and uses no index for.

    SQLite's documentation names the unary plus for this.  It also keeps an equality from being
    substituted into other conditions, which hides the expression that an index is made of.
    """

    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> Self:
        """It is a condition already: without this, ``= 1`` is added where booleans are numbers."""
        return self


@compiles(unindexed)
def _as_it_is(element: unindexed, compiler: SQLCompiler, **how: Any) -> str:
    return f"({compiler.process(element.clauses, **how)})"


@compiles(unindexed, "sqlite")
def _with_plus(element: unindexed, compiler: SQLCompiler, **how: Any) -> str:
    return f"+({compiler.process(element.clauses, **how)})"
