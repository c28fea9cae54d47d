-- Grain: a refused row of a parquet file. Columns: row (from 0), line (from 1), text (the row as JSON), problem (null).
with
scanned as (
    select *
    from read_parquet(
        $path, hive_partitioning = false, binary_as_string = true, file_row_number = true
    )
),
final as (
    select
        scanned.file_row_number as row,
        scanned.file_row_number + 1 as line,
        left(
            json_merge_patch(to_json(scanned), '{"file_row_number": null}'::json)::varchar, 1048576
        ) as text,
        null::varchar as problem
    from scanned
    semi join wanted_rows on wanted_rows.row = scanned.file_row_number
    order by 1
)
select * from final
