-- Events of items that no catalogue knows, by item type; queries have no item.
-- grain: an item type; columns: item_type, events, orphans, items
with final as (
    select
        events.item_type,
        count(*) as events,
        count(*) filter (where catalog.item_id is null) as orphans,
        count(distinct events.item_id) filter (where catalog.item_id is null) as items
    from events
    left join catalog
        on catalog.item_type = events.item_type and catalog.item_id = events.item_id
    where events.item_type <> 'query'
    group by events.item_type
    order by events.item_type
)

select * from final
