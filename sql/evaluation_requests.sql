-- A repeatable sample of users who engaged ($actions) with what is ranked ($item_type) from $start on, or of $users
-- where they are given: each one's first request of that time, and its query where it had one.
-- grain: a user; columns: user_id, request_id, ts, surface, query
with shown as (
    select user_id, request_id, ts, surface, query
    from events
    where action = 'impression' and item_type = $item_type and ts >= $start
),

engaged as (
    select distinct user_id
    from events
    where
        item_type = $item_type
        and ts >= $start
        and if($users is null, list_contains($actions, action), list_contains($users, user_id))
),

first_requests as (
    select
        user_id,
        arg_min(request_id, ts) as request_id,
        min(ts) as ts,
        arg_min(surface, ts) as surface,
        arg_min(query, ts) as query
    from shown
    join engaged using (user_id)
    group by user_id
),

final as (
    select
        first_requests.user_id,
        first_requests.request_id,
        first_requests.ts,
        first_requests.surface,
        coalesce(first_requests.query, asked.query) as query
    from first_requests
    left join request_queries as asked using (request_id)
    order by md5(first_requests.user_id)
    limit $limit
)

select * from final
