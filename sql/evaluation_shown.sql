-- What people see of some items ($ids).
-- grain: an item; columns: item_id, title, image, category
with final as (
    select item_id, title, image, category
    from catalog
    where list_contains($ids, item_id)
    order by item_type desc, item_id
)

select * from final
