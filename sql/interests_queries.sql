-- Distinct logged queries before $until (microseconds UTC).
-- grain: a query; columns: query, users
with final as (
    select query, count(distinct user_id) as users
    from events
    where query is not null and epoch_us(ts) < $until
    group by query
    order by query
)

select * from final
