"""The warehouse: opening and migrating DuckDB, the shapes of its tables, and named queries."""

from adstool.warehouse.database import open_warehouse
from adstool.warehouse.queries import load_sql

__all__ = ["load_sql", "open_warehouse"]
