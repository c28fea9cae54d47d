-- Grain: what a line of a file of sequences says happened: an impression and a click. The n-th last action of a
-- user lies n days before 2000-01-01 (see adstool/ingestion/sources/sequences.py).
-- Columns: event_id, ts, user_id, item_type, item_id, action, request_id, surface, attributes (none), problem, _row.
with
records as (
    {records}
),
numbered as (
    select
        *,
        row_number() over (partition by user_id order by _row) as place,
        count(*) over (partition by user_id) as actions
    from records
),
happened as (
    select
        *,
        concat(user_id, '-', place, '-', item_id) as request,
        unnest(['impression', 'click']) as action
    from numbered
),
final as (
    select
        concat(request, '-', action) as event_id,
        -- As text: readers parse times themselves, as they would those of a file.
        strftime(timestamp '2000-01-01' - to_days((actions - place + 1)::integer), '%Y-%m-%dT%H:%M:%SZ') as ts,
        user_id,
        'pin' as item_type,
        item_id,
        action,
        request as request_id,
        'home' as surface,
        null::json as attributes,
        case
            when user_id is null then 'user_id is missing'
            when item_id is null then 'item_id is missing'
        end as problem,
        _row
    from happened
)
select * from final
