-- What a user searched for last.
-- grain: a query; columns: query, times, last_ts
with final as (
    select query, count(distinct coalesce(request_id, event_id)) as times, max(ts) as last_ts
    from events
    where user_id = $user and query is not null
    group by query
    order by last_ts desc, query
    limit $limit
)

select * from final
