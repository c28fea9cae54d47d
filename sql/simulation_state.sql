-- What the users of asked_requests carry into them: decayed engagement and exposure by category, from the log.
-- asked_requests: number, user_id, ts; carried: action, engaged, exposed; each fades by e in its days.
-- grain: a request and a category; columns: number, category, engaged, exposed
with acted as (
    select
        asked_requests.number,
        events.item_type,
        events.item_id,
        events.action,
        date_diff('second', events.ts, asked_requests.ts) / 86400.0 as age
    from asked_requests
    join events on events.user_id = asked_requests.user_id and events.ts < asked_requests.ts
),

final as (
    select
        acted.number,
        catalog.category,
        sum(carried.engaged * exp(-acted.age / $engaged_days)) as engaged,
        sum(carried.exposed * exp(-acted.age / $exposed_days)) as exposed
    from acted
    join carried using (action)
    join catalog using (item_type, item_id)
    group by acted.number, catalog.category
)

select * from final
