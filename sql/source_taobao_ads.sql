-- Grain: an ad of Taobao's ad_feature.csv. Columns: ad_id, campaign_id, category, price, attributes (brand),
-- problem, _row. The data has neither titles nor pictures.
with
records as (
    {records}
),
final as (
    select
        adgroup_id as ad_id,
        nullif(campaign_id, 'NULL') as campaign_id,
        nullif(cate_id, 'NULL') as category,
        nullif(price, 'NULL') as price,
        case when nullif(brand, 'NULL') is not null then json_object('brand', brand) end as attributes,
        null::varchar as problem,
        _row
    from records
)
select * from final
