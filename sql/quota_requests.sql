-- Requests of the log as they come, for quotas to be learned on: a repeatable sample of those in which something of
-- $item_type was shown.
-- grain: a request; columns: request_id, user_id, surface, query
with shown as (
    select
        request_id,
        any_value(user_id) as user_id,
        any_value(surface) as surface,
        any_value(query) as query
    from events
    where action = 'impression' and item_type = $item_type and request_id is not null
    group by request_id
),

final as (
    select
        shown.request_id,
        shown.user_id,
        shown.surface,
        coalesce(shown.query, asked.query) as query
    from shown
    left join request_queries as asked using (request_id)
    order by md5(shown.request_id)
    limit $limit
)

select * from final
