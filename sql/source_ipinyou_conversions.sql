-- Grain: a conversion of an iPinYou log. Columns: conversion_id, ts (UTC), user_id, advertiser_id, kind,
-- channel, attributes (bidid, creative), problem, _row.
with
records as (
    {records}
),
final as (
    select
        concat(bidid, '-conversion') as conversion_id,
        try_strptime(timestamp, '%Y%m%d%H%M%S%g') - interval 8 hours as ts,
        coalesce(nullif(nullif(ipinyouid, 'null'), ''), concat('address-', "IP")) as user_id,
        advertiser as advertiser_id,
        'conversion' as kind,
        'online' as channel,
        json_object('bidid', bidid, 'creative', creative) as attributes,
        case
            when bidid is null or bidid = 'null' then 'bidid is missing'
            when try_strptime(timestamp, '%Y%m%d%H%M%S%g') is null
            then concat(
                'timestamp ', coalesce(to_json(left(timestamp, 80))::varchar, 'missing'),
                ' is not of the form yyyyMMddHHmmssSSS'
            )
        end as problem,
        _row
    from records
)
select * from final
