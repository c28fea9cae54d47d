-- Grain: what a line of an iPinYou log says happened: a bid, an impression, a click, or an impression and a
-- click where the column click says so. Columns: event_id, ts (UTC), user_id, item_type, item_id, action,
-- request_id, surface (the exchange), attributes (prices a thousand views), problem, _row.
with
records as (
    {records}
),
typed as (
    select
        *,
        try_strptime(timestamp, '%Y%m%d%H%M%S%g') - interval 8 hours as moment,
        case
            when regexp_matches(lower($file), '(^|[/\\])bid[^/\\]*$') or logtype = '0' then ['bid']
            when logtype = '2' then ['click']
            when logtype = '3' then ['conversion']
            when click = '1' then ['impression', 'click']
            else ['impression']
        end as actions
    from records
),
happened as (
    select *, unnest(actions) as action from typed
),
final as (
    select
        concat(bidid, '-', action) as event_id,
        moment as ts,
        coalesce(nullif(nullif(ipinyouid, 'null'), ''), concat('address-', "IP")) as user_id,
        'ad' as item_type,
        creative as item_id,
        action,
        bidid as request_id,
        concat('exchange-', nullif(adexchange, 'null')) as surface,
        json_object(
            'floor_price', try_cast(slotprice as double),
            'bid_price', try_cast(bidprice as double),
            'paid_price', try_cast(payprice as double),
            'slot', nullif(slotid, 'null'),
            'visibility', nullif(slotvisibility, 'null'),
            'domain', nullif(domain, 'null'),
            'useragent', nullif(useragent, 'null')
        ) as attributes,
        case
            when bidid is null or bidid = 'null' then 'bidid is missing'
            when moment is null
            then concat(
                'timestamp ', coalesce(to_json(left(timestamp, 80))::varchar, 'missing'),
                ' is not of the form yyyyMMddHHmmssSSS'
            )
            when creative is null or creative = 'null' then 'creative is missing'
            when logtype not in ('0', '1', '2', '3')
            then concat('logtype ', to_json(left(logtype, 80))::varchar, ' is not 0, 1, 2 or 3')
            when click not in ('0', '1')
            then concat('click ', to_json(left(click, 80))::varchar, ' is not 0 or 1')
            when try_cast(bidprice as double) is null
            then concat('bidprice ', coalesce(to_json(left(bidprice, 80))::varchar, 'missing'), ' is not a number')
        end as problem,
        _row
    from happened
)
select * from final
