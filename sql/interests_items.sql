-- The catalogue as interests read it.
-- grain: an item; columns: item_type, item_id, title, description, category
with final as (
    select item_type, item_id, title, description, category
    from catalog
    order by item_type, item_id
)

select * from final
