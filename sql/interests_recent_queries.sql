-- What a user searched for last, and the intents that CLIP read in it (empty where it has not).
-- grain: a query; columns: query, times, last_ts, intents
with asked as (
    select query, count(distinct coalesce(request_id, event_id)) as times, max(ts) as last_ts
    from events
    where user_id = $user and query is not null
    group by query
    order by last_ts desc, query
    limit $limit
),

intents as (
    select query, list({'topic': topic, 'score': score} order by score desc, topic) as intents
    from query_intents
    group by query
),

final as (
    select asked.query, asked.times, asked.last_ts, coalesce(intents.intents, []) as intents
    from asked
    left join intents using (query)
    order by asked.last_ts desc, asked.query
)

select * from final
