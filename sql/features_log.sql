-- Grain: an event or conversion that a feature reads, known before $until (microseconds UTC).
-- ts: microseconds UTC, of the report for a conversion. ..._no: dense numbers, null where unknown. ranked: the item is of the ranked type. action: 0 impression, 1.. position in $actions,
-- then conversion. log_price: ln(1 + price) of the item.
with
coded_events as (
    select
        epoch_us(events.ts) as ts,
        feature_users.number as user_no,
        feature_items.item_no,
        coalesce(feature_items.ranked, false) as ranked,
        feature_items.category_no,
        feature_items.advertiser_no,
        feature_surfaces.number as surface_no,
        cast(coalesce(list_position($actions, events.action), 0) as tinyint) as action,
        feature_items.log_price
    from events
    join feature_users on feature_users.user_id = events.user_id
    left join feature_items
        on feature_items.item_type = events.item_type and feature_items.item_id = events.item_id
    left join feature_surfaces on feature_surfaces.surface = events.surface
    where
        (events.action = 'impression' or list_contains($actions, events.action))
        and epoch_us(events.ts) < $until
),
coded_conversions as (
    select
        epoch_us(coalesce(conversions.reported_at, conversions.ts)) as ts,
        feature_users.number as user_no,
        cast(null as integer) as item_no,
        false as ranked,
        cast(null as integer) as category_no,
        feature_advertisers.advertiser_no,
        cast(null as integer) as surface_no,
        cast(len($actions) + 1 as tinyint) as action,
        cast(null as double) as log_price
    from conversions
    join feature_users on feature_users.user_id = conversions.user_id
    left join feature_advertisers on feature_advertisers.advertiser_id = conversions.advertiser_id
    where epoch_us(coalesce(conversions.reported_at, conversions.ts)) < $until
),
final as (
    select * from coded_events
    union all by name
    select * from coded_conversions
)
select * from final
