-- What the users of interest_changed did, by what it was about, strictly before $until (microseconds UTC).
-- amount: Σ share · 2^((ts - $reference) / $half_life), times in microseconds. A conversion is known from its report
-- on, ages from the moment it happened, and is about what its advertiser's ads are about.
-- grain: a user, kind, level, value, source and action; columns as in the table interest_sums
with acted as (
    select
        user_id,
        item_type,
        item_id,
        action,
        sum(pow(2.0::double, (epoch_us(ts) - $reference) / $half_life)) as amount,
        count(*) as count,
        max(ts) as last_ts
    from events
    semi join interest_changed using (user_id)
    where (action = 'impression' or list_contains($actions, action)) and epoch_us(ts) < $until
    group by all
),

requests as (
    select user_id, query, coalesce(request_id, event_id) as request, min(ts) as ts
    from events
    semi join interest_changed using (user_id)
    where query is not null and epoch_us(ts) < $until
    group by all
),

asked as (
    select
        user_id,
        query,
        sum(pow(2.0::double, (epoch_us(ts) - $reference) / $half_life)) as amount,
        count(*) as count,
        max(ts) as last_ts
    from requests
    group by all
),

converted as (
    select
        user_id,
        advertiser_id,
        'offsite_' || coalesce(channel, 'online') as source,
        kind as action,
        sum(pow(2.0::double, (epoch_us(ts) - $reference) / $half_life)) as amount,
        count(*) as count,
        max(ts) as last_ts
    from conversions
    semi join interest_changed using (user_id)
    where $offsite and epoch_us(coalesce(reported_at, ts)) < $until
    group by all
),

advertised as (
    select
        catalog.advertiser_id,
        interest_members.kind,
        interest_members.level,
        interest_members.value,
        sum(interest_members.share) as amount
    from interest_members
    join catalog using (item_type, item_id)
    where catalog.advertiser_id is not null
    group by all
),

advertisers as (
    select * exclude (amount), amount / sum(amount) over (partition by advertiser_id, kind, level) as share
    from advertised
),

together as (
    select
        acted.user_id, members.kind, members.level, members.value, 'on_site' as source, acted.action,
        acted.amount * members.share as amount, acted.count, acted.last_ts
    from acted
    join interest_members as members using (item_type, item_id)
    union all
    select
        asked.user_id, members.kind, members.level, members.value, 'query' as source, 'query' as action,
        asked.amount * members.share as amount, asked.count, asked.last_ts
    from asked
    join interest_query_members as members using (query)
    union all
    select
        converted.user_id, members.kind, members.level, members.value, converted.source, converted.action,
        converted.amount * members.share as amount, converted.count, converted.last_ts
    from converted
    join advertisers as members using (advertiser_id)
),

final as (
    select
        user_id,
        kind,
        level,
        value,
        source,
        action,
        sum(amount) as amount,
        sum(count)::bigint as count,
        max(last_ts) as last_ts
    from together
    group by all
)

select * from final
