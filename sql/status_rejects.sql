-- Grain: a refused row. Columns: table_name, file, line, reason, row, rejected_at.
with
final as (
    select table_name, file, line, reason, row, rejected_at
    from rejects
    where $table is null or table_name = $table
    order by rejected_at desc, file, line
    limit $limit
)
select * from final
