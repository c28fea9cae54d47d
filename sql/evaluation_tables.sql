-- Rows of every outside table and of the refused rows, with what was read from files.
-- grain: a table; columns: table_name, rows, read, duplicate, rejected
with counted as (
    select 1 as place, 'users' as table_name, count(*) as rows from users
    union all
    select 2, 'pins', count(*) from pins
    union all
    select 3, 'advertisers', count(*) from advertisers
    union all
    select 4, 'campaigns', count(*) from campaigns
    union all
    select 5, 'ads', count(*) from ads
    union all
    select 6, 'events', count(*) from events
    union all
    select 7, 'conversions', count(*) from conversions
),

loaded as (
    select
        table_name,
        sum(read)::bigint as read,
        sum(duplicate)::bigint as duplicate,
        sum(rejected)::bigint as rejected
    from files
    group by table_name
),

final as (
    select
        table_name,
        rows,
        coalesce(read, 0) as read,
        coalesce(duplicate, 0) as duplicate,
        coalesce(rejected, 0) as rejected
    from counted
    left join loaded using (table_name)
    order by place
)

select * from final
