-- Titles of named items.
-- grain: one row an item
-- columns: item_type, item_id, title
-- parameters: $ids, a list of item ids
with final as (
    select
        item_type,
        item_id,
        title
    from catalog
    where list_contains($ids, item_id)
)

select * from final
