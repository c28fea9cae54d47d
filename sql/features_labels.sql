-- Grain: an example and an action (1.. position in $actions) that followed it. An action belongs to the latest
-- impression of the same user and item at or before it, of the same request where both name one, if that was at
-- most $windows[action] hours earlier. events: how many; amount: sum of their values; valued: how many had one.
with
actions as materialized (  -- its numbering must be the same wherever it is read
    select
        row_number() over () as event,
        epoch_us(events.ts) as ts,
        feature_users.number as user_no,
        feature_items.item_no,
        events.request_id,
        list_position($actions, events.action) as action,
        events.value
    from events
    join feature_items
        on feature_items.item_type = events.item_type and feature_items.item_id = events.item_id
    join feature_users on feature_users.user_id = events.user_id
    where feature_items.ranked and list_contains($actions, events.action)
),
impressions as (
    select user_no, item_no, request_id, ts, max(example) as example
    from feature_examples
    group by user_no, item_no, request_id, ts
),
unnamed_impressions as (select user_no, item_no, ts, example from impressions where request_id is null),
any_impressions as (
    select user_no, item_no, ts, max(example) as example
    from impressions
    group by user_no, item_no, ts
),
same_request as (
    select actions.event, impressions.ts, impressions.example
    from actions
    asof join impressions
        on impressions.user_no = actions.user_no
        and impressions.item_no = actions.item_no
        and impressions.request_id = actions.request_id
        and impressions.ts <= actions.ts
),
impression_unnamed as (
    select actions.event, unnamed_impressions.ts, unnamed_impressions.example
    from actions
    asof join unnamed_impressions
        on unnamed_impressions.user_no = actions.user_no
        and unnamed_impressions.item_no = actions.item_no
        and unnamed_impressions.ts <= actions.ts
    where actions.request_id is not null
),
action_unnamed as (
    select actions.event, any_impressions.ts, any_impressions.example
    from actions
    asof join any_impressions
        on any_impressions.user_no = actions.user_no
        and any_impressions.item_no = actions.item_no
        and any_impressions.ts <= actions.ts
    where actions.request_id is null
),
found as (
    select * from same_request
    union all
    select * from impression_unnamed
    union all
    select * from action_unnamed
),
latest as (select event, max((ts, example)) as impression from found group by event),
final as (
    select
        impression[2] as example,
        actions.action,
        min(actions.ts) as first_ts,
        count(*) as events,
        sum(actions.value) as amount,
        count(actions.value) as valued
    from latest
    join actions using (event)
    where actions.ts - impression[1] <= $windows[actions.action] * 3600000000
    group by all
)
select * from final
