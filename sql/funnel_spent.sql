-- Grain: a slot sold from $start until before $stop (microseconds UTC) whose campaign is known. ts: microseconds UTC.
with final as (
    select epoch_us(auctions.ts) as ts, campaign_id, auctions.cost
    from auctions
    join ads on ads.ad_id = auctions.item_id
    where epoch_us(auctions.ts) >= $start and epoch_us(auctions.ts) < $stop and auctions.cost > 0
    order by ts
)
select * from final
