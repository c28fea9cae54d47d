-- The attributes in use, of items that the catalogue still holds.
-- grain: one row an item
-- columns: item_type, item_id, source, payload
-- parameters: $kind, the item type
with final as (
    select
        item_attributes.item_type,
        item_attributes.item_id,
        item_attributes.source,
        item_attributes.payload::varchar as payload
    from item_attributes
    semi join catalog using (item_type, item_id)
    where item_attributes.item_type = $kind
    order by item_attributes.item_id
)

select * from final
