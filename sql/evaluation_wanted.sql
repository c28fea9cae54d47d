-- What the sampled users ($users) engaged with ($actions) from $start on, once each, among what is ranked.
-- new: the item was never shown to anybody before $start.
-- grain: a user and an item; columns: user_id, item_id, new
with wanted as (
    select distinct user_id, item_id
    from events
    where list_contains($actions, action)
        and item_type = $item_type
        and ts >= $start
        and list_contains($users, user_id)
),

shown_before as (
    select distinct item_id
    from events
    where action = 'impression' and item_type = $item_type and ts < $start
),

final as (
    select wanted.user_id, wanted.item_id, shown_before.item_id is null as new
    from wanted
    left join shown_before using (item_id)
    order by wanted.user_id, wanted.item_id
)

select * from final
