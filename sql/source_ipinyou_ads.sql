-- Grain: a creative of an iPinYou log. Columns: ad_id, campaign_id, landing_url, format (width x height),
-- attributes, problem, _row (its first).
with
records as (
    {records}
),
final as (
    select
        creative as ad_id,
        arg_min(advertiser, _row) as campaign_id,
        arg_min(nullif(keypage, 'null'), _row) as landing_url,
        arg_min(concat(slotwidth, 'x', slotheight), _row) as format,
        null::json as attributes,
        null::varchar as problem,
        min(_row) as _row
    from records
    where creative is not null and creative <> 'null'
    group by creative
)
select * from final
