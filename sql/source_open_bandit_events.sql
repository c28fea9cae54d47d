-- Grain: what a round of the Open Bandit Dataset says happened: an impression, and a click if there was one.
-- Columns: event_id, ts, user_id, item_type, item_id, action, request_id, surface (the campaign), position (from 0),
-- propensity, source (the policy), attributes (affinity: by item, where not 0), problem, _row. Policy and campaign
-- are the two folders of the file.
with
records as (
    {records}
),
named as (
    select
        *,
        regexp_extract($file, '([^/\\]+)[/\\][^/\\]+[/\\][^/\\]+$', 1) as policy,
        regexp_extract($file, '([^/\\]+)[/\\][^/\\]+$', 1) as campaign,
        try_cast("position" as integer) as place,
        try_cast(propensity_score as double) as chance,
        list_transform(
            list_value(*columns('user-item_affinity_.*')), lambda affinity: coalesce(try_cast(affinity as double), 0)
        ) as affinities
    from records
),
happened as (
    select
        *,
        concat_ws('-', policy, campaign, _row) as round,
        unnest(case when click = '1' then ['impression', 'click'] else ['impression'] end) as action
    from named
),
final as (
    select
        concat(round, '-', action) as event_id,
        "timestamp" as ts,
        md5(concat_ws('|', user_feature_0, user_feature_1, user_feature_2, user_feature_3))[1:16] as user_id,
        'pin' as item_type,
        concat(campaign, '-', item_id) as item_id,
        action,
        round as request_id,
        campaign as surface,
        place - 1 as "position",
        propensity_score as propensity,
        policy as source,
        json_object(
            'affinity',
            map_from_entries(
                list_filter(
                    list_zip(range(len(affinities)), affinities), lambda entry: entry[2] <> 0
                )
            )
        ) as attributes,
        case
            when item_id is null then 'item_id is missing'
            when click is null or click not in ('0', '1')
            then concat('click ', coalesce(to_json(left(click, 80))::varchar, 'missing'), ' is not 0 or 1')
            when place is null or place < 1
            then concat(
                'position ', coalesce(to_json(left("position", 80))::varchar, 'missing'), ' is not from 1'
            )
            when chance is null or not (chance > 0 and chance <= 1)
            then concat(
                'propensity_score ',
                coalesce(to_json(left(propensity_score, 80))::varchar, 'missing'),
                ' is no probability'
            )
        end as problem,
        _row
    from happened
)
select * from final
