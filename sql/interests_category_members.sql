-- Items as members of their category.
-- grain: an item with a category; columns: level, item_type, item_id, value, share
with final as (
    select 0 as level, item_type, item_id, category as value, 1.0::double as share
    from catalog
    where category is not null
)

select * from final
