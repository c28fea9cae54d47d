-- Grain: an action before $until (microseconds UTC), split by what is known of its item: the base rates.
with
final as (
    select
        action,
        ranked,
        item_no is not null as has_item,
        category_no is not null as has_category,
        advertiser_no is not null as has_advertiser,
        surface_no is not null as has_surface,
        count(*) as events
    from feature_log
    where ts < $until
    group by all
)
select * from final
