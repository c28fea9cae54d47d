-- Users of the catalogue or of the log before $until (microseconds UTC), numbered by what they tell about themselves.
-- grain: a user; columns: user_id, profile (0 for all where $profile is false), gender, age_bucket, country
with seen as (
    select user_id from users
    union
    select user_id from events where epoch_us(ts) < $until
    union
    select user_id from conversions where $offsite and epoch_us(coalesce(reported_at, ts)) < $until
),

told as (
    select
        user_id,
        any_value(gender) as gender,
        any_value(age_bucket) as age_bucket,
        any_value(country) as country
    from users
    where $profile
    group by user_id
),

described as (
    select
        seen.user_id,
        coalesce(told.gender, '') as gender,
        coalesce(told.age_bucket, '') as age_bucket,
        coalesce(told.country, '') as country
    from seen
    left join told using (user_id)
    where seen.user_id is not null
),

final as (
    select user_id, dense_rank() over (order by gender, age_bucket, country) - 1 as profile, gender, age_bucket, country
    from described
)

select * from final
