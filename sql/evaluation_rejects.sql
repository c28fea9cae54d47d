-- Why rows were refused, most frequent first.
-- grain: a table and a reason; columns: table_name, reason, rows
with final as (
    select table_name, reason, count(*) as rows
    from rejects
    group by table_name, reason
    order by rows desc, table_name, reason
    limit $limit
)

select * from final
