"""The shapes of the tables that come from outside: columns, types, what is required and what is in range."""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVES = ("awareness", "consideration", "conversions", "catalog_sales")
BID_STRATEGIES = ("fixed", "max_clicks", "max_conversions", "target_cpa", "target_roas")
ITEM_TYPES = ("ad", "pin", "query")
CHANNELS = ("online", "offline")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `check` is a SQL condition on `{value}` that a value which is present must meet; `meaning` completes the
    sentence "<column> ... is not <meaning>" when it does not, or when the value is not of the type.
    """

    name: str
    type: str = "text"  # text | time | integer | number | image
    required: bool = False
    check: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """One table: its columns in order, its key, and what a repeated key with other content means."""

    name: str
    columns: tuple[Column, ...]
    key: str
    updates: bool = True  # catalogues take the newer content; logs keep the first

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order, without `attributes`."""
        return tuple(column.name for column in self.columns)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every row must have."""
        return tuple(column.name for column in self.columns if column.required)


SQL_TYPES = {
    "text": "varchar",
    "image": "varchar",
    "time": "timestamp",
    "integer": "integer",
    "number": "double",
}


def _text(name: str) -> Column:
    return Column(name)


def _id(name: str) -> Column:
    return Column(name, required=True)


def _time(name: str, required: bool = False) -> Column:
    return Column(name, "time", required)


def _amount(name: str) -> Column:
    return Column(name, "number", check="{value} >= 0", meaning="a number of 0 or more")


def _choice(name: str, choices: tuple[str, ...], required: bool = False) -> Column:
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return Column(name, "text", required, f"{{value}} in ({listed})", f"one of {', '.join(choices)}")


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "users",
            (
                _id("user_id"),
                _time("signup_at"),
                _text("country"),
                _text("language"),
                _text("age_bucket"),
                _text("gender"),
            ),
            "user_id",
        ),
        Table(
            "pins",
            (
                _id("pin_id"),
                _text("title"),
                _text("description"),
                Column("image", "image"),
                _text("board_id"),
                _text("category"),
                _time("created_at"),
            ),
            "pin_id",
        ),
        Table("advertisers", (_id("advertiser_id"), _text("name"), _text("vertical")), "advertiser_id"),
        Table(
            "campaigns",
            (
                _id("campaign_id"),
                _id("advertiser_id"),
                _choice("objective", OBJECTIVES),
                _choice("bid_strategy", BID_STRATEGIES),
                _amount("bid"),
                _amount("target"),
                _amount("daily_budget"),
                _time("starts_at"),
                _time("ends_at"),
            ),
            "campaign_id",
        ),
        Table(
            "ads",
            (
                _id("ad_id"),
                _id("campaign_id"),
                _text("title"),
                _text("description"),
                Column("image", "image"),
                _text("landing_url"),
                _amount("price"),
                _text("category"),
                _text("format"),
                _time("created_at"),
            ),
            "ad_id",
        ),
        Table(
            "events",
            (
                _id("event_id"),
                _time("ts", required=True),
                _id("user_id"),
                _choice("item_type", ITEM_TYPES, required=True),
                _text("item_id"),
                _id("action"),
                _text("request_id"),
                _text("surface"),
                Column("position", "integer", check="{value} >= 0", meaning="a whole number of 0 or more"),
                Column("value", "number", meaning="a finite number"),
                Column(
                    "propensity",
                    "number",
                    check="{value} > 0 and {value} <= 1",
                    meaning="a number above 0 and at most 1",
                ),
                _text("source"),
                _text("query"),
            ),
            "event_id",
            updates=False,
        ),
        Table(
            "conversions",
            (
                _id("conversion_id"),
                _time("ts", required=True),
                _id("user_id"),
                _id("advertiser_id"),
                _id("kind"),
                _time("reported_at"),
                _amount("value"),
                _amount("quantity"),
                _choice("channel", CHANNELS),
            ),
            "conversion_id",
            updates=False,
        ),
    )
}
