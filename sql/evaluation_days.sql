-- Impressions and actions by day (UTC).
-- grain: a day; columns: day, impressions, actions
with final as (
    select
        ts::date as day,
        count(*) filter (where action = 'impression') as impressions,
        count(*) filter (where action not in ('impression', 'query')) as actions
    from events
    group by day
    order by day
)

select * from final
