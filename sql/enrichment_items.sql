-- The items that have words to enrich.
-- grain: one row an item of the kinds asked for
-- columns: item_type ('ad' | 'pin'), item_id, title, description, category, price (null for pins)
-- parameters: $kinds, a list of item types
with final as (
    select
        item_type,
        item_id,
        any_value(title) as title,
        any_value(description) as description,
        any_value(category) as category,
        any_value(price) as price
    from catalog
    where
        list_contains($kinds, item_type)
        and item_id is not null
        and coalesce(nullif(trim(title), ''), nullif(trim(description), '')) is not null
    group by item_type, item_id
    order by item_type, item_id
)

select * from final
