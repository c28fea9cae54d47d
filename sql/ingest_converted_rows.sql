-- Grain: a refused row of a converted copy of a damaged file. Columns: row (from 0), line (from 1, of the
-- original file), text, problem (why the record could not be read, or null).
with
scanned as (
    select file_row_number, line, text, problem
    from read_parquet($path, hive_partitioning = false, file_row_number = true)
),
final as (
    select scanned.file_row_number as row, scanned.line, scanned.text, scanned.problem
    from scanned
    semi join wanted_rows on wanted_rows.row = scanned.file_row_number
    order by 1
)
select * from final
