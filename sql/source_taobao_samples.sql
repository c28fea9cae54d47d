-- Grain: what a line of Taobao's raw_sample.csv says happened: an impression, and a click when clk is 1.
-- Columns: event_id, ts, user_id, item_type, item_id, action, request_id, surface (the place, pid), attributes,
-- problem, _row.
with
records as (
    {records}
),
happened as (
    select
        *,
        concat_ws('-', "user", time_stamp, adgroup_id, pid) as request,
        unnest(case clk when '1' then ['impression', 'click'] else ['impression'] end) as action
    from records
),
final as (
    select
        concat(request, '-', action) as event_id,
        time_stamp as ts,
        "user" as user_id,
        'ad' as item_type,
        adgroup_id as item_id,
        action,
        request as request_id,
        pid as surface,
        null::json as attributes,
        case
            when adgroup_id is null then 'adgroup_id is missing'
            when clk is null or clk not in ('0', '1')
            then concat('clk ', coalesce(to_json(left(clk, 80))::varchar, 'missing'), ' is not 0 or 1')
        end as problem,
        _row
    from happened
)
select * from final
