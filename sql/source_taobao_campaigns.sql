-- Grain: an ad of Taobao's ad_feature.csv, for its campaign. Columns: campaign_id, advertiser_id, attributes,
-- problem, _row. A campaign of several ads comes several times, alike.
with
records as (
    {records}
),
final as (
    select
        nullif(campaign_id, 'NULL') as campaign_id,
        nullif(customer, 'NULL') as advertiser_id,
        null::json as attributes,
        null::varchar as problem,
        _row
    from records
)
select * from final
