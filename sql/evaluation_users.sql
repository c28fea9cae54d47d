-- A repeatable sample of users who were active in the last part of the log, among those with some history.
-- grain: a user; columns: user_id, surface (of the last impression), query, ts
with last_seen as (select max(ts) as ts from events),

active as (
    select
        user_id,
        arg_max(surface, ts) filter (where action = 'impression') as surface,
        arg_max(query, ts) filter (where action = 'impression') as query,
        max(events.ts) as ts,
        count(*) filter (where list_contains($actions, action)) as engaged
    from events
    group by user_id
),

final as (
    select active.user_id, active.surface, active.query, active.ts
    from active
    cross join last_seen
    where active.engaged >= 3 and active.ts > last_seen.ts - interval 3 day
    order by md5(active.user_id)
    limit $limit
)

select * from final
