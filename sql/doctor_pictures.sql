-- Grain: one item of a sample, the same every time. Columns: item_id, image.
-- Parameters: pictures (how many).
with
final as (
    select item_id, image
    from catalog
    where image is not null
    order by hash(item_id), item_id
    limit $pictures
)
select * from final
