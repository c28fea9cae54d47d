-- A repeatable sample of the requests that were shown what is ranked ($item_type) from $start until $end.
-- grain: a request; columns: user_id, ts, surface, query
with shown as (
    select user_id, request_id, ts, surface, query
    from events
    where action = 'impression' and item_type = $item_type and ts >= $start and ts < $end
),

requests as (
    select
        user_id,
        coalesce(request_id, ts::varchar) as request,
        any_value(request_id) as request_id,
        min(ts) as ts,
        any_value(surface) as surface,
        any_value(query) as query
    from shown
    group by user_id, request
),

final as (
    select
        requests.user_id,
        requests.ts,
        requests.surface,
        coalesce(requests.query, asked.query) as query
    from requests
    left join request_queries as asked using (request_id)
    order by md5(requests.user_id || requests.request)
    limit $limit
)

select * from final
