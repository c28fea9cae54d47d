-- Users whose events or conversions are not those that their stored sums were made of, users gone included.
-- content: a hash of a user's rows that ignores their order; null for a user who has none any more.
-- grain: a user; columns: user_id, content
with did as (
    select user_id, hash(event_id, ts, item_type, item_id, action, query, request_id) as content
    from events
    union all
    select user_id, hash(conversion_id, ts, reported_at, advertiser_id, channel, kind) as content
    from conversions
    where $offsite
),

users_now as (
    select user_id, sum(content)::uhugeint as content from did group by user_id
),

final as (
    select coalesce(users_now.user_id, interest_users.user_id) as user_id, users_now.content
    from users_now
    full join interest_users using (user_id)
    where users_now.content is distinct from interest_users.content
)

select * from final
