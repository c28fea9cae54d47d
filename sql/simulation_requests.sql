-- A repeatable sample ($seed, $limit) of the logged requests in which what is ranked ($item_type) was shown.
-- grain: a request; columns: user_id, ts, surface, query, requests (how many there are), days (of the log)
with shown as (
    select
        coalesce(request_id, user_id || '@' || epoch_us(ts)) as request_id,
        user_id,
        min(ts) as ts,
        any_value(surface) as surface,
        any_value(query) as query
    from events
    where action = 'impression' and item_type = $item_type
    group by all
),

total as (
    select count(*) as requests, date_diff('day', min(ts)::date, max(ts)::date) + 1 as days
    from shown
),

final as (
    select
        shown.user_id,
        shown.ts,
        shown.surface,
        coalesce(shown.query, asked.query) as query,
        total.requests,
        total.days
    from shown
    cross join total
    left join request_queries as asked using (request_id)
    order by md5(shown.request_id || '#' || $seed)
    limit $limit
)

select * from final
