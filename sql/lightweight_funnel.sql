-- A repeatable sample of the requests whose candidates the funnel's log holds, from $start until $end, with
-- $candidates of these each, shown or not; requests with fewer are left out.
-- grain: a request; columns: user_id, ts, surface, query, items
with candidates as (
    select user_id, request_id, item_id, min(ts) as ts, any_value(surface) as surface
    from funnel
    where stage = 'retrieval' and ts >= $start and ts < $end
    group by user_id, request_id, item_id
),

found as (
    select
        user_id,
        request_id,
        min(ts) as ts,
        any_value(surface) as surface,
        list(item_id order by md5(request_id || item_id)) as items
    from candidates
    group by user_id, request_id
    having count(*) >= $candidates
),

final as (
    select
        found.user_id,
        found.ts,
        found.surface,
        asked.query,
        found.items[1:$candidates] as items
    from found
    left join request_queries as asked using (request_id)
    order by md5(found.user_id || found.request_id)
    limit $limit
)

select * from final
