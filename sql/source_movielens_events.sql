-- Grain: what a MovieLens rating says happened: an impression, and a click when it has four stars or more.
-- Columns: event_id, ts, user_id, item_type, item_id, action, request_id, surface, attributes (rating),
-- problem, _row.
with
records as (
    {records}
),
typed as (
    select
        *,
        try_cast(rating as double) as stars,
        concat(user_id, '-', item_id, '-', timestamp) as request
    from records
),
happened as (
    select
        *,
        unnest(case when stars >= 4 and stars <= 5 then ['impression', 'click'] else ['impression'] end) as action
    from typed
),
final as (
    select
        concat(request, '-', action) as event_id,
        timestamp as ts,
        user_id,
        'pin' as item_type,
        item_id,
        action,
        request as request_id,
        'home' as surface,
        json_object('rating', stars) as attributes,
        case
            when item_id is null then 'item_id is missing'
            when stars is null or stars not between 0.5 and 5
            then concat('rating ', coalesce(to_json(left(rating, 80))::varchar, 'missing'), ' is not from 0.5 to 5')
        end as problem,
        _row
    from happened
)
select * from final
