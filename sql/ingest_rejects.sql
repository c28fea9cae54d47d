-- Grain: a refused row of the stage that is not among the rejects yet.
insert into rejects (table_name, file, line, reason, row, rejected_at)
with
refused as (
    select
        $table as table_name,
        $file as file,
        located.line,
        coalesce(located.problem, stage.reason) as reason,
        located.text as row
    from stage
    inner join located on located.row = stage.{row}
    where stage.reason is not null
),
final as (
    select *, now()::timestamp as rejected_at
    from refused
    anti join rejects using (table_name, file, line, reason, row)
    order by line
)
select * from final
