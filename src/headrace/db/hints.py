"""What one kind of database must be told and the others know.

SQLite's planner guesses where other databases keep statistics.  Without them (nobody runs ANALYZE
on an embedded database) it takes every index for equally selective, and Glance's indexes on
``deleted`` hold nearly all rows under one key: reading one image's properties then scans
everybody's (28 ms instead of 0.05 with 300,000 properties).

MySQL and MariaDB compare text by a collation, and Glance's tables have one to which "Ä", "a" and
"a " are the same: another project's images would be ours.  They do not see that a comparison of
rows is a range of an index, and prefer to sort what an index would give them in order: a page from
the middle of 8,000 images cost 4,025 rows instead of 25.
"""

from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType

_NAMES_INDEX = {"mysql": "FORCE INDEX ({})", "sqlite": "INDEXED BY {}"}


class unindexed(FunctionElement[bool]):
    """The condition it is given, but one that is tested on rows, and that no index is used for.

    SQLite's documentation names the unary plus for this.  It also keeps an equality from being
    substituted into other conditions, which hides the expression that an index is made of.
    PostgreSQL looks for no index below IS TRUE; its estimate stays what it was.
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


@compiles(unindexed, "postgresql")
def _is_true(element: unindexed, compiler: SQLCompiler, **how: Any) -> str:
    return f"(({compiler.process(element.clauses, **how)}) IS TRUE)"


class among(FunctionElement[bool]):
    """Whether a column is among what a SELECT finds, which is found first.

    PostgreSQL joins it to whatever it believes to be few: of the images behind a marker it expected
    one, and tested 475,000.
    """

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any], found: sa.Select[*tuple[Any, ...]]) -> None:
        super().__init__(column, found.scalar_subquery())

    def self_group(self, against: OperatorType | None = None) -> Self:
        """It is a condition already, like ``unindexed``."""
        return self


@compiles(among)
def _in(element: among, compiler: SQLCompiler, **how: Any) -> str:
    column, found = (compiler.process(each, **how) for each in element.clauses)
    return f"{column} IN {found}"


@compiles(among, "postgresql")
def _any_of_array(element: among, compiler: SQLCompiler, **how: Any) -> str:
    column, found = (compiler.process(each, **how) for each in element.clauses)
    return f"{column} = ANY (ARRAY{found})"


class in_index_order(FunctionElement[Any]):
    """What to order a count by that ends at a limit: the column that an index would order it by.

    Otherwise PostgreSQL collects all matches first: 112 ms became 8, of 125,000 matches.  For MySQL
    it is no order, since its index holds but the start of a value and what follows lies behind.
    """

    inherit_cache = True


@compiles(in_index_order)
def _by_column(element: in_index_order, compiler: SQLCompiler, **how: Any) -> str:
    return compiler.process(element.clauses, **how)


@compiles(in_index_order, "mysql", "mariadb")
def _by_nothing(_element: in_index_order, _compiler: SQLCompiler, **_how: Any) -> str:
    return "NULL"


def by_itself(select: sa.Select[*tuple[Any, ...]]) -> sa.Select[*tuple[Any, ...]]:
    """A SELECT that PostgreSQL is to plan by itself: for EXISTS, or to be sorted.

    OFFSET keeps it from more.  A join it would begin with what it believes to be few, and it does
    not know how many images have a property: 2,000 ms became 30.  An order it would walk along.
    """
    return select.suffix_with("OFFSET 0", dialect="postgresql")


class estimated_rows(FunctionElement[int]):
    """About how many rows a table has, deleted ones too, at no cost; NULL if that is unknown."""

    type = sa.BigInteger()
    inherit_cache = True

    def __init__(self, table: sa.Table) -> None:
        super().__init__(sa.literal_column(f"'{table.name}'"))


@compiles(estimated_rows, "sqlite")
def _last_row(element: estimated_rows, compiler: SQLCompiler, **how: Any) -> str:
    return f"(SELECT max(rowid) FROM {compiler.process(element.clauses, **how).strip(chr(39))})"


@compiles(estimated_rows, "postgresql")
def _statistics(element: estimated_rows, compiler: SQLCompiler, **how: Any) -> str:
    name = compiler.process(element.clauses, **how)
    return f"(SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = to_regclass({name}))"


@compiles(estimated_rows, "mysql", "mariadb")
def _table_rows(element: estimated_rows, compiler: SQLCompiler, **how: Any) -> str:
    name = compiler.process(element.clauses, **how)
    return (
        "(SELECT table_rows FROM information_schema.tables"
        f" WHERE table_schema = database() AND table_name = {name})"
    )


class _either(FunctionElement[bool]):
    """Two conditions, of which MySQL is told the second and all others the first."""

    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> Self:
        """It is a condition already, like ``unindexed``."""
        return self


@compiles(_either)
def _the_first(element: _either, compiler: SQLCompiler, **how: Any) -> str:
    first, _ = element.clauses
    return f"({compiler.process(first, **how)})"


@compiles(_either, "mysql", "mariadb")
def _the_second(element: _either, compiler: SQLCompiler, **how: Any) -> str:
    _, second = element.clauses
    return f"({compiler.process(second, **how)})"


def exactly(comparison: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """A comparison, ``==`` or ``in_``; if of text, then case, accents and final spaces matter.

    On MySQL the bytes are compared on the rows that the collation, whose indexes serve, has found.
    """
    assert isinstance(comparison, BinaryExpression)
    if not isinstance(comparison.left.type, sa.String):
        return comparison
    strict = comparison.operator(sa.cast(comparison.left, sa.LargeBinary), comparison.right)
    return _either(comparison, comparison & strict)


def in_range(rows: sa.ColumnElement[bool], keys: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """A comparison of rows of values, or the same spelt out, key by key."""
    return _either(rows, keys)


def of_key(key: sa.ColumnElement[bool], column: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """A condition on a key that is an expression, or on its column, where only that is indexed."""
    return _either(key, column)


def along(
    walk: sa.Select[*tuple[Any, ...]], table: sa.FromClause, index: str, *dialects: str
) -> sa.Select[*tuple[Any, ...]]:
    """A SELECT that MySQL answers by this index, and by no merger of several, which has no end.

    SQLite would rather read one row by its primary key than see in an index what it looks for.
    """
    for dialect in dialects or _NAMES_INDEX:
        walk = walk.with_hint(table, _NAMES_INDEX[dialect].format(index), dialect)
    return walk


class HintedSQLite(SQLiteCompiler):
    """SQLAlchemy's compiler, which has hints in FROM for other databases only."""

    def get_from_hint_text(self, _table: sa.FromClause, text: str | None) -> str | None:
        return text


def indexes_expressions(dialect: str) -> bool:
    """Whether a database has indexes on expressions: MariaDB has none."""
    return dialect != "mysql"
