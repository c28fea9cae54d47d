-- How often each action was logged on what is ranked ($item_type), against its impressions.
-- grain: an action; columns: action, events, users, rate
with counted as (
    select action, count(*) as events, count(distinct user_id) as users
    from events
    where item_type = $item_type
    group by action
),

shown as (
    select coalesce(sum(events), 0) as impressions
    from counted
    where action = 'impression'
),

final as (
    select
        action,
        events,
        users,
        case when impressions > 0 then events / impressions end as rate
    from counted
    cross join shown
    order by action = 'impression' desc, events desc, action
)

select * from final
