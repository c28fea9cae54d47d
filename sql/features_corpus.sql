-- Grain: one row. any_ad: whether an ad is in the catalogue or was ever shown.
with
known as (select exists (from ads) as found),
shown as (select exists (from events where item_type = 'ad' and action = 'impression') as found),
final as (select known.found or shown.found as any_ad from known cross join shown)
select * from final
