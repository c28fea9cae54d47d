"""Rule: what a user's SQL says cannot write, attach, load, set, or read anything but the warehouse.

Every statement and function of DuckDB 2 known to write or to look elsewhere is tried, straight, inside
others, and with --output.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from adstool.config import load_settings
from adstool.errors import AdstoolError
from adstool.warehouse import open_warehouse
from adstool.warehouse.readonly import Answer, locked_down
from adstool.workspace import Workspace

# OUT is a file that must not appear, SECRET.* are files that must not be read, OTHER another database.
WRITES = """
insert into users (user_id) values ('x')
insert or replace into users (user_id) values ('x') returning *
update users set country = 'x'
delete from users
truncate users
merge into users using (select 'u1' as id) s on s.id = users.user_id when matched then delete
drop table users
alter table users add column z int
alter database warehouse set alias to x
create table t as select 1
create temp table t as select 1
create or replace view v as select 1
create macro m() as 1
create temp macro m(x) as table select * from read_csv(x)
create function f() as 1
create sequence s
create type t as enum ('a')
create schema s
create index i on users (user_id)
create secret s (type s3, key_id 'x', secret 'y')
create persistent secret s (type s3)
drop secret s
comment on table users is 'x'
copy users to 'OUT'
copy (select 1) to 'OUT' (format parquet)
copy (select 1) to '/dev/stdout'
copy users from 'SECRET.csv'
copy from database warehouse to other
export database 'OUT'
import database 'HERE'
pragma import_database('HERE')
pragma copy_database('a', 'b')
with x as (insert into users (user_id) values ('x') returning *) select * from x
with x as (delete from users returning *) select * from x
explain insert into users (user_id) values ('x')
explain analyze insert into users (user_id) values ('x')
explain analyze delete from users
explain analyze create table t as select 1
explain analyze copy users to 'OUT'
from query('insert into users (user_id) values (1)')
from query('copy users to ''OUT''')
prepare p as insert into users (user_id) values ('x')
execute p
vacuum analyze users
call force_checkpoint()
pragma force_checkpoint
"""
SESSIONS = """
attach 'OTHER' as other
attach 'OTHER' as other (read_only)
attach ':memory:' as m
explain analyze attach ':memory:' as m
detach warehouse
use memory
set enable_external_access = true
set global lock_configuration = false
set lock_configuration = false
reset enable_external_access
set allowed_paths = ['/']
set variable x = 1
set home_directory = 'HERE'
set temp_directory = 'OUT'
set python_enable_replacements = true
set autoload_known_extensions = true
set allow_unsigned_extensions = true
install httpfs
install 'OUT.duckdb_extension'
force install httpfs from community
load httpfs
load 'OUT.duckdb_extension'
update extensions
pragma enable_logging
pragma enable_profiling = 'json'
pragma profile_output = 'OUT'
pragma profiling_output = 'OUT'
pragma log_query_path = 'OUT'
pragma memory_limit = '1GB'
pragma threads = 1
call enable_logging()
call enable_logging(storage = 'file', storage_path = 'OUT')
call enable_profiling(format = 'json', save_location = 'OUT')
call disable_profiling()
call start_ui()
call load_aws_credentials()
call dbgen(sf = 0.001)
begin
commit
rollback
select 1; drop table users
select 1; select 2
; delete from users
"""
READS = """
from 'SECRET.csv'
select * from "SECRET.csv"
from read_csv('SECRET.csv')
from read_csv(['SECRET.csv'])
from read_csv('file://SECRET.csv')
from read_csv_auto('SECRET.csv')
from sniff_csv('SECRET.csv')
from read_text('SECRET.csv')
from read_blob('SECRET.csv')
from read_blob('/proc/self/environ')
from read_csv('/dev/stdin')
from read_json('SECRET.json')
from read_json_auto('SECRET.json')
from read_json_objects('SECRET.json')
from read_ndjson('SECRET.json')
from read_ndjson_objects('SECRET.json')
from read_parquet('SECRET.parquet')
from parquet_scan(['SECRET.parquet'])
from parquet_metadata('SECRET.parquet')
from parquet_schema('SECRET.parquet')
from parquet_kv_metadata('SECRET.parquet')
from parquet_file_metadata('SECRET.parquet')
from parquet_bloom_probe('SECRET.parquet', 'a', 1)
from 'SECRET.parquet'
from read_duckdb('OTHER')
from 'OTHER'
from glob('HERE/*')
from glob('/*')
from read_csv('https://192.0.2.1/x.csv')
from 'https://192.0.2.1/x.parquet'
from read_xlsx('HERE/x.xlsx')
from sqlite_scan('OTHER', 't')
from postgres_scan('host=127.0.0.1', 'public', 't')
from iceberg_scan('HERE')
from delta_scan('HERE')
from st_read('SECRET.csv')
call read_csv('SECRET.csv')
describe select * from 'SECRET.csv'
summarize 'SECRET.csv'
pivot 'SECRET.csv' on a using count(*)
from histogram('SECRET.csv', a)
from query('from read_csv(''SECRET.csv'')')
from query_table('SECRET.csv')
from query_table(['SECRET.csv'])
from json_execute_serialized_sql(json_serialize_sql('from read_text(''SECRET.csv'')'))
pragma json_execute_serialized_sql(json_serialize_sql('from read_text(''SECRET.csv'')'))
select (select content from read_text('SECRET.csv'))
select * from users where user_id in (select content from read_text('SECRET.csv'))
select * from range(3) t, lateral (from read_text('SECRET.csv'))
with x as (from read_text('SECRET.csv')) from x
explain analyze select * from read_csv('SECRET.csv')
select getenv('ADSTOOL_TEST_SECRET')
from which_secret('s3://x', 's3')
from duckdb_secrets(redact = false)
from arrow_scan(1, 2, 3)
from pandas_scan(1)
from python_map_function(1)
from here
from settings
select $here
select ?
"""
ANSWERED = """
from users
values (1)
show tables
describe users
summarize users
explain select 1
explain analyze from users
pragma table_info('users')
select * from duckdb_settings() where name = 'enable_external_access'
with recursive x as (select 1 as a union all select a + 1 from x where a < 9) select max(a) from x
"""


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace, and beside it files that are none of its business."""
    here = tmp_path_factory.mktemp("sql")
    (here / "shop").mkdir()
    (here / "shop" / "adstool.toml").write_text("", encoding="utf-8")
    with open_warehouse(Workspace(here / "shop"), load_settings(None, environment={})) as con:
        con.execute("insert into users (user_id) values ('u1')")
    (here / "secret.csv").write_text("a\nwhispered\n", encoding="utf-8")
    (here / "secret.json").write_text('{"a": "whispered"}\n', encoding="utf-8")
    with duckdb.connect(str(here / "other.duckdb")) as other:
        other.execute("create table t as select 'whispered' as a")
        other.execute(f"copy t to '{here / 'secret.parquet'}'")
    return here


@pytest.fixture(scope="module")
def con(place: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with locked_down(Workspace(place / "shop"), load_settings(None, environment={})) as con:
        yield con


def _filled(query: str, here: Path) -> str:
    named = query.replace("OUT", str(here / "out")).replace("OTHER", str(here / "other.duckdb"))
    return named.replace("SECRET", str(here / "secret")).replace("HERE", str(here))


def _files(here: Path) -> dict[str, bytes]:
    return {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["writes", "sessions", "reads"])
def test_sql_cannot_write_attach_set_load_or_read_elsewhere(
    kind: str, place: Path, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSTOOL_TEST_SECRET", "whispered")
    here = place  # a local that a replacement scan could find
    before = _files(here)
    for query in _lines({"writes": WRITES, "sessions": SESSIONS, "reads": READS}[kind]):
        with pytest.raises(AdstoolError) as refused:
            raise AssertionError(f"{query} was answered: {list(Answer(con, _filled(query, here)).rows())}")
        assert refused.value.hint, query
        assert "whispered" not in refused.value.message, query
    assert _files(here) == before
    assert list(Answer(con, "from users select user_id").rows()) == [{"user_id": "u1"}]


def test_sql_with_output_writes_nothing_but_the_answer(place: Path, con: duckdb.DuckDBPyConnection) -> None:
    before = _files(place)
    for query in ("select * from read_csv('SECRET.csv')", "copy users to 'OUT'", "delete from users"):
        with pytest.raises(AdstoolError):
            Answer(con, _filled(query, place)).write(place / "answer.csv")
    for target in ("shop/warehouse.duckdb", "shop/adstool.toml", "nowhere/answer.csv"):
        with pytest.raises(AdstoolError):
            Answer(con, "from users").write(place / target)
    assert _files(place) == before


def test_sql_that_nests_without_end_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    for query in ("(" * 20_000 + "1" + ")" * 20_000, "not " * 50_000 + "true", "+".join(["1"] * 20_000)):
        with pytest.raises(AdstoolError):
            list(Answer(con, f"select {query}").rows())


def test_sql_that_reads_is_answered(con: duckdb.DuckDBPyConnection) -> None:
    for query in _lines(ANSWERED):
        assert list(Answer(con, query).rows()), query


def test_no_function_of_this_duckdb_reads_a_file(place: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Every table and scalar function is given the path of a file: those of a newer DuckDB, too."""
    listed = "select distinct function_name as name, function_type as type from duckdb_functions()"
    before = _files(place)
    tried = 0
    for found in list(Answer(con, listed).rows()):
        table = found["type"] == "table"
        ways = [f"from {found['name']}('{{}}')", f"from {found['name']}(['{{}}'])"]
        for way in ways if table else [f"select {found['name']}('{{}}')"]:
            for file in ("secret.csv", "secret.json", "secret.parquet", "other.duckdb")[: 4 if table else 1]:
                tried += 1
                try:
                    answer = list(Answer(con, way.format(place / file)).rows())
                except AdstoolError:
                    continue
                assert "whispered" not in str(answer), way
    assert tried > 700
    assert _files(place) == before
