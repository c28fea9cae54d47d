-- Grain: a slot sold from $start until before $stop (microseconds UTC) whose campaign is known. ts: microseconds UTC.
with final as (
    select epoch_us(sold.ts) as ts, campaign_id, sold.cost
    from {auctions} as sold
    join ads on ads.ad_id = sold.item_id
    where epoch_us(sold.ts) >= $start and epoch_us(sold.ts) < $stop and sold.cost > 0
    order by ts
)
select * from final
