-- What users did with the categories of the catalogue before $start and from then on. engaged: $actions.
-- grain: a user and a category; columns: user_id, category, shown, engaged, last_ts (of an engagement, microseconds
-- UTC), all before $start, and later, engagements from $start on
with final as (
    select
        events.user_id,
        catalog.category,
        count(*) filter (where events.ts < $start) as shown,
        count(*) filter (where events.ts < $start and list_contains($actions, events.action)) as engaged,
        max(epoch_us(events.ts)) filter (where events.ts < $start and list_contains($actions, events.action))
            as last_ts,
        count(*) filter (where events.ts >= $start and list_contains($actions, events.action)) as later
    from events
    join catalog on catalog.item_type = events.item_type and catalog.item_id = events.item_id
    where catalog.category is not null
    group by all
)

select * from final
