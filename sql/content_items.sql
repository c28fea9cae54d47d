-- The items that have something to embed or to learn from.
-- grain: one row an item of the kinds asked for
-- columns: item_type ('ad' | 'pin'), item_id, title, description, image (path or URL, null where none), category
-- parameters: $kinds, a list of item types
with chosen as (
    select
        item_type,
        item_id,
        title,
        description,
        nullif(trim(image), '') as image,
        category
    from catalog
    where list_contains($kinds, item_type)
),

final as (
    select *
    from chosen
    order by item_type, item_id
)

select * from final
