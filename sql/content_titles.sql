-- What is written of named items.
-- grain: one row an item
-- columns: item_type, item_id, title, words (title, description and category together)
-- parameters: $ids, a list of item ids
with final as (
    select
        item_type,
        item_id,
        title,
        concat_ws(' ', title, description, category) as words
    from catalog
    where list_contains($ids, item_id)
)

select * from final
