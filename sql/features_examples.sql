-- Grain: an impression of a ranked item that the catalogue knows, numbered in the order of time.
-- request: the logged request, or the user and time where none was logged, as a dense number. query: of the
-- impression, or of a query event of the same request that is not later.
with
shown as (
    select
        events.event_id,
        epoch_us(events.ts) as ts,
        feature_users.number as user_no,
        feature_items.item_no,
        feature_items.category_no,
        feature_items.advertiser_no,
        feature_surfaces.number as surface_no,
        events.request_id,
        events.position,
        events.propensity,
        coalesce(events.query, asked.query) as query,
        case when events.request_id is null then user_no end as anonymous_user,
        case when events.request_id is null then epoch_us(events.ts) end as anonymous_ts
    from events
    join feature_items
        on feature_items.item_type = events.item_type and feature_items.item_id = events.item_id
    join feature_users on feature_users.user_id = events.user_id
    left join feature_surfaces on feature_surfaces.surface = events.surface
    left join request_queries as asked on asked.request_id = events.request_id and asked.ts <= events.ts
    where events.action = 'impression' and feature_items.ranked
),
requests as (
    select
        row_number() over (order by request_id, anonymous_user, anonymous_ts) - 1 as request,
        request_id,
        anonymous_user,
        anonymous_ts
    from (select distinct request_id, anonymous_user, anonymous_ts from shown)
),
-- Sorted first and numbered as they pass: a sort goes to the disk where memory is short, a window over all does not.
ordered as (
    select
        requests.request,
        shown.* exclude (event_id, anonymous_user, anonymous_ts)
    from shown
    join requests
        on requests.request_id is not distinct from shown.request_id
        and requests.anonymous_user is not distinct from shown.anonymous_user
        and requests.anonymous_ts is not distinct from shown.anonymous_ts
    order by shown.ts, shown.user_no, shown.request_id, shown.position, shown.item_no, shown.event_id
),
final as (
    select row_number() over () - 1 as example, *
    from ordered
)
select * from final
