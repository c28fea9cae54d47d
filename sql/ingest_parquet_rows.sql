-- Grain: a refused row of a parquet file. Columns: row (from 0), line (from 1), text (the row as JSON), problem (null).
-- Rows are counted here, in the order of the file: DuckDB's own file_row_number fails where the file has a
-- column of that name.
with
scanned as (
    select record, row_number() over () - 1 as row
    from read_parquet($path, hive_partitioning = false, binary_as_string = true) as record
),
final as (
    select
        scanned.row,
        scanned.row + 1 as line,
        left(to_json(scanned.record)::varchar, 65536) as text,
        null::varchar as problem
    from scanned
    semi join wanted_rows on wanted_rows.row = scanned.row
    order by 1
)
select * from final
