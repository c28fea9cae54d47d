-- Grain: one row. Columns: conversions (that a click of the user on an ad of the advertiser came before).
-- Parameters: hours (of the window).
with
clicks as (
    select e.user_id, c.advertiser_id, e.ts
    from events e
    join ads a on e.item_type = 'ad' and a.ad_id = e.item_id
    join campaigns c using (campaign_id)
    where e.action = 'click'
),
last_clicks as (
    select v.ts, k.ts as clicked_at
    from conversions v
    asof join clicks k
        on v.user_id = k.user_id and v.advertiser_id = k.advertiser_id and v.ts >= k.ts
),
final as (
    select count(*) as conversions
    from last_clicks
    where ts - clicked_at <= to_seconds($hours * 3600)
)
select * from final
