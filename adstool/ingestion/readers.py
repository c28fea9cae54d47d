"""How DuckDB reads each format: raw values of known columns by name, everything else into attributes."""

from __future__ import annotations

import csv
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from adstool.errors import DataError, UsageError
from adstool.ingestion.inputs import Dialect, Input, damaged, physical_lines
from adstool.ingestion.validation import Relation
from adstool.warehouse import load_sql
from adstool.warehouse.schema import TABLES, Table

SAMPLE = 2000  # lines whose keys tell whether a required column has another name
SAMPLE_BYTES = 1 << 24  # of these lines, should they be long
DELIMITERS = (",", "\t", ";", "|")
ATTRIBUTES = "attributes"


def read_relation(
    con: duckdb.DuckDBPyConnection,
    source: Input,
    mapping: Mapping[str, str],
    copy: Input | None = None,
    whole: bool = False,
) -> tuple[Relation, Dialect]:
    """The relation of a whole file of its table's columns, and how the file is written.

    `copy` is what lines.convert made of a file that DuckDB cannot read itself; with `whole`, objects are read
    with all their keys even if the first lines have none but the table's. Raises DataError when the
    file cannot be read, or when a required column is nowhere in it, naming the column that looks most
    like it.
    """
    table = TABLES[source.table]
    if source.format == "jsonl":
        return _jsonl(con, source, table, mapping, copy, whole), Dialect()
    if source.format == "csv":
        dialect, header = csv_header(source)
        if not header:
            return Relation(load_sql("ingest_nothing"), {}), dialect
        names = place(source, table, header, mapping)
        scan = csv_scan(source, dialect) if copy is None else (CONVERTED, {"path": copy.pattern})
        return _positional(table, names, header, scan), dialect
    return _parquet(con, source, table, mapping), Dialect()


CONVERTED = "read_parquet($path, hive_partitioning = false)"


def place(source: Input, table: Table, header: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    """Which position of `header` holds each of the table's columns, and `attributes`, after renaming."""
    wanted = {ours: theirs for theirs, ours in mapping.items() if ours in table.names}
    places: dict[str, int] = {}
    for column in (*table.names, ATTRIBUTES):
        theirs = wanted.get(column, column)
        if theirs in header and (column in wanted or theirs not in mapping):
            places[column] = list(header).index(theirs)
    require(source, table, header, mapping, places)
    return places


def require(
    source: Input,
    table: Table,
    header: Iterable[str],
    mapping: Mapping[str, str],
    present: Iterable[str],
) -> None:
    """Raise DataError when a required column is not `present`; the hint names the likeliest of `header`."""
    known = set(present)
    missing = [name for name in table.required if name not in known]
    if not missing:
        return
    free = [name for name in header if name not in known and mapping.get(name) not in known]
    pairs: dict[str, str | None] = {}
    for name in missing:
        left = [key for key in free if key not in pairs.values()]
        own = "id" if name == table.key and "id" in left else None  # of the table's own things
        pairs[name] = nearest(name, left) or own
    likely = [f"--map {near}={name}" for name, near in pairs.items() if near]
    listed = ", ".join(sorted(free)[:20]) or "none"
    hint = f"Did you mean {' '.join(likely)}?" if likely else f"Name it with --map COLUMN={missing[0]}."
    renamed = [theirs for theirs, ours in mapping.items() if ours in missing]
    if renamed:
        hint = f"--map names '{renamed[0]}', which is not a column of the file. {hint}"
    named = " and ".join(f"'{name}'" for name in missing)
    raise DataError(
        f"{source.name} has no column {named}, which {table.name} must have.",
        f"{hint} Its other columns: {listed}.",
    )


# What others call our columns, where the names do not look alike.
SYNONYMS = {
    "ts": ("timestamp", "time", "datetime", "eventtime", "when", "date"),
    "user_id": ("user", "uid", "customerid", "memberid"),
    "action": ("eventtype", "event", "what", "type", "eventname"),
    "item_type": ("type", "kind"),
    "event_id": ("id", "uuid"),
    "kind": ("type", "event"),
}


def nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that looks most like `name`, letters' case and separators aside; None if none does."""
    plain = {_plain(candidate): candidate for candidate in candidates}
    for synonym in SYNONYMS.get(name, ()):
        if synonym in plain:
            return plain[synonym]
    found = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.55)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def check_mapping(mapping: Mapping[str, str], tables: Iterable[str]) -> None:
    """Raise UsageError when a target of --map is no column of any of the tables, or is given twice."""
    known = [column for name in tables for column in TABLES[name].names]
    for theirs, ours in mapping.items():
        if ours not in known:
            near = nearest(ours, known)
            hint = f"Did you mean --map {theirs}={near}?" if near else f"Columns: {', '.join(known)}."
            raise UsageError(f"--map {theirs}={ours}: there is no column '{ours}'.", hint)
    doubled = [ours for ours in mapping.values() if list(mapping.values()).count(ours) > 1]
    if doubled:
        raise UsageError(f"--map gives two columns for '{doubled[0]}'.", "Keep one of them.")


def _jsonl(
    con: duckdb.DuckDBPyConnection,
    source: Input,
    table: Table,
    mapping: Mapping[str, str],
    copy: Input | None,
    whole: bool,
) -> Relation:
    wanted = {ours: theirs for theirs, ours in mapping.items() if ours in table.names}
    theirs = {name: wanted.get(name, name) for name in table.names}
    # A column renamed to another one no longer feeds the column whose name it bears.
    usable = {name: key for name, key in theirs.items() if name in wanted or key not in mapping}
    if copy is not None:
        lines = f"(select case when json_valid(json) then json::json end as json from {CONVERTED}) as lines"
        return _objects(table, usable, lines, {"path": copy.pattern})
    file = {"path": source.pattern, "compression": source.compression}
    seen = _sampled_keys(source)
    fed = set(usable.values())
    complete = all(usable.get(name) in seen for name in table.required)
    if seen and not complete:
        keys = other_keys(con, source, ())
        require(source, table, keys, mapping, [name for name, key in usable.items() if key in keys])
    if whole or not seen <= fed:
        return _objects(table, usable, OBJECTS, file)
    # DuckDB's own reader of records takes a third less than reading objects, but passes over other keys.
    columns = dict.fromkeys(usable.values(), "VARCHAR")
    sql = load_sql("ingest_records").format(
        columns=",\n    ".join(f"{_quoted(key)} as {name}" for name, key in usable.items())
    )
    parameters = {**file, "columns": columns}
    return Relation(sql, dict.fromkeys(usable, "text"), parameters, keys=tuple(usable.values()))


def other_keys(con: duckdb.DuckDBPyConnection, source: Input, known: Sequence[str]) -> list[str]:
    """Every key but the `known` ones that any object of a jsonl file has."""
    file = {"path": source.pattern, "compression": source.compression}
    found = {str(row[0]) for row in con.execute(load_sql("ingest_keys"), file).fetchall()}
    return sorted(found - set(known))


OBJECTS = (
    "read_json_objects($path, format = 'newline_delimited', ignore_errors = true, compression = $compression)"
)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sampled_keys(source: Input) -> set[str]:
    """Keys of the objects among the first lines."""
    seen: set[str] = set()
    size = 0
    with source.open() as handle:
        for number, line in physical_lines(handle):
            size += len(line)
            if number > SAMPLE or size > SAMPLE_BYTES:
                break
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                seen |= record.keys()
    return seen


def _objects(table: Table, usable: Mapping[str, str], scan: str, parameters: Mapping[str, Any]) -> Relation:
    columns = [f"struct_extract_at(record, {place}) as {name}" for place, name in enumerate(usable, start=1)]
    present = " + ".join(
        f"(struct_extract_at(record, {place}) is not null)::integer" for place in range(1, len(usable) + 1)
    )
    sql = load_sql("ingest_objects").format(
        base=load_sql("ingest_given_attributes").format(value="(json ->> '$.attributes')"),
        scan=scan,
        columns=",\n        ".join(columns),
        present=present,
        key=f"struct_extract_at(record, {list(usable).index(table.key) + 1})",
    )
    return Relation(
        sql,
        dict.fromkeys(usable, "text"),
        {
            **parameters,
            "structure": json.dumps(dict.fromkeys(usable.values(), "VARCHAR")),
            "strip": json.dumps(dict.fromkeys([*usable.values(), ATTRIBUTES])),
        },
    )


def csv_header(source: Input) -> tuple[Dialect, list[str]]:
    """Dialect and column names of a csv file; an empty file has no names. Raises DataError on doubles."""
    with source.open() as handle:
        line = handle.readline(BIGGEST_HEADER)
    if not line:
        return Dialect(), []
    text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if not text.strip():
        raise DataError(f"The first line of {source.name} is empty.", "It should name the columns.")
    try:
        cuts = {mark: next(csv.reader([text], delimiter=mark)) for mark in DELIMITERS}
    except csv.Error as error:
        raise DataError(
            f"The first line of {source.name} is no list of columns: {error}",
            "Lines should end in a line feed, and the first should name the columns.",
        ) from None
    delimiter = max(DELIMITERS, key=lambda mark: len(cuts[mark]))
    names = [name.strip() for name in cuts[delimiter]]
    doubled = [name for name, times in Counter(names).items() if name and times > 1]
    if doubled:
        raise DataError(
            f"{source.name} has two columns called '{doubled[0][:80]}'.", "Rename one in the first line."
        )
    names = [name or f"column{index}" for index, name in enumerate(names, start=1)]
    return Dialect(delimiter, len(names)), names


BIGGEST_HEADER = 1 << 20


def csv_scan(source: Input, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The call that reads a csv file strictly, every column text, called c0, c1, ...; and its parameters.

    Columns go by position, so that no name from a file becomes part of a statement.
    """
    columns = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(dialect.width))
    quote = "'\"'" if dialect.quoted else "''"
    call = (
        f"read_csv($path, columns = {{{columns}}}, delim = $delimiter, quote = {quote}, escape = {quote},"
        f" header = {str(dialect.header).lower()}, auto_detect = false, compression = $compression,"
        " encoding = $encoding, hive_partitioning = false, max_line_size = 16777216, buffer_size = 33554432)"
    )
    parameters = {
        "path": source.pattern,
        "delimiter": dialect.delimiter,
        "compression": source.compression,
        "encoding": dialect.encoding,
    }
    return call, parameters


def _positional(
    table: Table,
    places: Mapping[str, int],
    header: Sequence[str],
    scan: tuple[str, dict[str, Any]],
    kinds: Sequence[str] = (),
) -> Relation:
    """The relation of a file whose columns are called c0, c1, ... in the order of `header`."""
    call, parameters = scan
    parameters = dict(parameters)
    others: list[str] = []
    for index, name in enumerate(header):
        if index not in places.values():
            parameters[f"name{index}"] = name
            others.append(f"$name{index}, c{index}")
    base = "'{}'::json"
    if ATTRIBUTES in places:
        base = load_sql("ingest_given_attributes").format(value=f"c{places[ATTRIBUTES]}::varchar")
    gathered = load_sql("ingest_gathered_attributes").format(base=base, others=", ".join(others))
    columns: list[str] = []
    known: dict[str, str] = {}
    for column in table.columns:
        if column.name in places:
            place = places[column.name]
            fits = {"time": ("time", "number"), "number": ("number",), "integer": ("number",)}
            kind = kinds[place] if kinds else "text"
            kept = kind == "text" or kind in fits.get(column.type, ())
            columns.append(f"c{place} as {column.name}" if kept else f"c{place}::varchar as {column.name}")
            known[column.name] = kind if kept else "text"
    sql = load_sql("ingest_columns").format(
        columns=",\n    ".join(columns),
        attributes=gathered if others or ATTRIBUTES in places else "null::json",
        scan=call,
    )
    return Relation(sql, known, parameters)


def _parquet(
    con: duckdb.DuckDBPyConnection, source: Input, table: Table, mapping: Mapping[str, str]
) -> Relation:
    try:
        described = con.execute(f"describe select * from {PARQUET}", {"path": source.pattern}).fetchall()
    except duckdb.Error as error:
        raise damaged(source.name, error) from None
    header = [str(row[0]) for row in described]
    places = place(source, table, header, mapping)
    casts, kinds = zip(*(_parquet_cast(f"p{i}", str(row[1])) for i, row in enumerate(described)), strict=True)
    renamed = ", ".join(f"p{index}" for index in range(len(header)))
    cast = ", ".join(f"{cast} as c{index}" for index, cast in enumerate(casts))
    scan = f"(select {cast} from {PARQUET} as scanned({renamed})) as converted"
    return _positional(table, places, header, (scan, {"path": source.pattern}), kinds)


PARQUET = "read_parquet($path, hive_partitioning = false, binary_as_string = true)"
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER")


def _parquet_cast(name: str, kind: str) -> tuple[str, str]:
    """A parquet column as something validation knows, and what that is: text, number, time or json."""
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({name})", "json"
    if kind.startswith("TIMESTAMP"):
        return f"{name}::timestamp", "time"
    if kind == "DATE":  # may lie beyond what a timestamp can hold; infinity is refused as out of range
        return f"if({name} is null, null, coalesce(try_cast({name} as timestamp), 'infinity'))", "time"
    if kind in (*NUMBERS, "UBIGINT", "UHUGEINT", "DOUBLE", "FLOAT") or kind.startswith("DECIMAL"):
        return name, "number"
    return f"{name}::varchar", "text"
