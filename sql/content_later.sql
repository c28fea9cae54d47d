-- What users went on to engage with after a picture, within a while: what its neighbours should be.
-- grain: a user and a picture they engaged with; columns: user_id, item (picture row), later (list of rows)
-- Only the first engagement of a user with a picture in the time counts.
-- needs: content_rows(item_type, item_id, number)
-- parameters: $actions, $since, $until, $window (seconds), $limit (rows, a repeatable sample)
with engaged as (
    select
        events.user_id,
        content_rows.number as item,
        min(events.ts) as ts
    from events
    join content_rows
        on content_rows.item_type = events.item_type and content_rows.item_id = events.item_id
    where list_contains($actions, events.action) and events.ts >= $since and events.ts < $until
    group by events.user_id, content_rows.number
),

followed as (
    select
        engaged.user_id,
        engaged.item,
        list(other.item order by other.item) as later
    from engaged
    join engaged as other
        on other.user_id = engaged.user_id
        and other.item <> engaged.item
        and other.ts > engaged.ts
        and epoch(other.ts) - epoch(engaged.ts) <= $window
    group by engaged.user_id, engaged.item
),

final as (
    select *
    from followed
    order by md5(user_id || ' ' || item), user_id, item
    limit $limit
)

select * from final
