-- Grain: a refused row of the file that is not among the rejects yet.
insert into rejects (table_name, file, line, reason, row, rejected_at)
with
named as (
    select
        $table as table_name,
        $file as file,
        located.line,
        coalesce(located.problem, refused.reason) as reason,
        located.text as row
    from refused
    inner join located on located.row = refused.row
),
final as (
    select *, now()::timestamp as rejected_at
    from named
    anti join rejects using (table_name, file, line, reason, row)
    order by line
)
select * from final
