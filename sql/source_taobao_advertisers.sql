-- Grain: an ad of Taobao's ad_feature.csv, for the customer who pays for it. Columns: advertiser_id,
-- attributes, problem, _row. A customer of several ads comes several times, alike.
with
records as (
    {records}
),
final as (
    select
        nullif(customer, 'NULL') as advertiser_id,
        null::json as attributes,
        null::varchar as problem,
        _row
    from records
)
select * from final
