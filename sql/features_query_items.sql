-- Grain: a query and an item that was engaged with ($positive actions) in its requests before $until
-- (microseconds UTC). times: how often. Reads: feature_items.
with
asked as (
    select request_id, any_value(query) as query
    from events
    where query is not null and request_id is not null and epoch_us(ts) < $until
    group by request_id
),
final as (
    select asked.query, feature_items.item_no, count(*) as times
    from events
    join asked using (request_id)
    join feature_items
        on feature_items.item_type = events.item_type and feature_items.item_id = events.item_id
    where list_contains($positive, events.action) and epoch_us(events.ts) < $until
    group by asked.query, feature_items.item_no
    order by asked.query, feature_items.item_no
)
select * from final
