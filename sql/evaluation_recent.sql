-- What some users engaged with last ($users, $actions), newest first.
-- grain: a user and an item; columns: user_id, item_id, title, image, category, action, ts
with engaged as (
    select user_id, item_type, item_id, arg_max(action, ts) as action, max(ts) as ts
    from events
    where list_contains($users, user_id) and list_contains($actions, action)
    group by user_id, item_type, item_id
),

known as (
    select
        engaged.user_id,
        engaged.item_id,
        catalog.title,
        catalog.image,
        catalog.category,
        engaged.action,
        engaged.ts,
        row_number() over (partition by engaged.user_id order by engaged.ts desc, engaged.item_id) as recency
    from engaged
    join catalog
        on catalog.item_type = engaged.item_type and catalog.item_id = engaged.item_id
),

final as (
    select * exclude (recency)
    from known
    where recency <= $limit
    order by user_id, ts desc, item_id
)

select * from final
