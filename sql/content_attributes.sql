-- What the vectors of items can be filtered by.
-- grain: one row an item of the kind asked for, by item_id
-- columns: item_id, model, category, advertiser_id, price, created_at, starts_at, ends_at (null where unknown),
--   active_from, active_until (never null: an open end is the year 1 or 9999), metadata_hash (of all these)
-- parameters: $kind, an item type; $model, the slug of the model that made the vectors
with described as (
    select
        item_id,
        cast($model as varchar) as model,
        category,
        advertiser_id,
        price,
        cast(created_at as timestamp) as created_at,
        cast(starts_at as timestamp) as starts_at,
        cast(ends_at as timestamp) as ends_at,
        greatest(
            coalesce(created_at, timestamp '0001-01-01'), coalesce(starts_at, timestamp '0001-01-01')
        ) as active_from,
        coalesce(ends_at, timestamp '9999-12-31') as active_until
    from catalog
    where item_type = $kind
),

final as (
    select
        *,
        md5(cast(to_json(described) as varchar)) as metadata_hash
    from described
    order by item_id
)

select * from final
