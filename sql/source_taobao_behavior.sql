-- Grain: a line of Taobao's behavior_log.csv: what a user did to goods of a category and brand. Columns:
-- event_id, ts, user_id, item_type, action, surface, attributes (category, brand), problem, _row. The log names
-- no item, so item_id is null. A user may do the same to one brand twice in a second: as the log cannot tell
-- them apart, they count once.
with
records as (
    {records}
),
final as (
    select
        concat_ws('-', 'behavior', "user", time_stamp, btag, cate, brand) as event_id,
        time_stamp as ts,
        "user" as user_id,
        'pin' as item_type,
        case btag when 'pv' then 'view' when 'fav' then 'save' else btag end as action,
        'shop' as surface,
        json_merge_patch(
            '{{}}'::json, json_object('category', nullif(cate, 'NULL'), 'brand', nullif(brand, 'NULL'))
        ) as attributes,
        case
            when btag is null or btag not in ('pv', 'cart', 'fav', 'buy')
            then concat(
                'btag ', coalesce(to_json(left(btag, 80))::varchar, 'missing'), ' is not pv, cart, fav or buy'
            )
        end as problem,
        _row
    from records
)
select * from final
