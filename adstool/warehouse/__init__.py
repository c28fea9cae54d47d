"""The warehouse: opening and migrating DuckDB, the shapes of its tables, and named queries."""

from adstool.warehouse.database import open_warehouse
from adstool.warehouse.queries import load_sql
from adstool.warehouse.spool import put_aside
from adstool.warehouse.tables import lent, put_table, transaction

__all__ = ["lent", "load_sql", "open_warehouse", "put_aside", "put_table", "transaction"]
