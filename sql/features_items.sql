-- Grain: an item of the catalogue, ads then pins, each by id: the order of ItemTable's rows.
with
final as (
    select
        item_type,
        item_id,
        any_value(title) as title,
        any_value(description) as description,
        any_value(image) as image,
        any_value(category) as category,
        any_value(price) as price,
        any_value(format) as format,
        any_value(created_at) as created_at,
        any_value(campaign_id) as campaign_id,
        any_value(advertiser_id) as advertiser_id,
        any_value(vertical) as vertical,
        any_value(objective) as objective,
        any_value(bid_strategy) as bid_strategy,
        any_value(bid) as bid,
        any_value(target) as target,
        any_value(daily_budget) as daily_budget,
        any_value(starts_at) as starts_at,
        any_value(ends_at) as ends_at
    from catalog
    where item_id is not null
    group by item_type, item_id
    order by item_type, item_id
)
select * from final
