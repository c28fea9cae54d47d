-- Grain: a user of the catalogue, or one who did something before $until (microseconds UTC); number: the dense
-- user number, in the order of the ids; signup_at in microseconds UTC.
with
seen as (
    select user_id from users
    union
    select user_id from events where epoch_us(ts) < $until
    union
    select user_id from conversions where epoch_us(coalesce(reported_at, ts)) < $until
),
profile as (
    select
        user_id,
        any_value(epoch_us(signup_at)) as signup_at,
        any_value(country) as country,
        any_value(language) as language,
        any_value(age_bucket) as age_bucket,
        any_value(gender) as gender
    from users
    group by user_id
),
final as (
    select
        cast(row_number() over (order by seen.user_id) - 1 as integer) as number,
        seen.user_id,
        profile.* exclude (user_id)
    from seen
    left join profile using (user_id)
    where seen.user_id is not null
    order by number
)
select * from final
