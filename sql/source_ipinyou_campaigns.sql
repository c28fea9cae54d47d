-- Grain: the campaign that stands for an advertiser of an iPinYou log. Columns: campaign_id, advertiser_id,
-- attributes, problem, _row (its first).
with
records as (
    {records}
),
final as (
    select
        advertiser as campaign_id,
        advertiser as advertiser_id,
        null::json as attributes,
        null::varchar as problem,
        min(_row) as _row
    from records
    group by advertiser
)
select * from final
