-- Grain: a conversion of a known user at an advertiser of the catalogue that was known before $until
-- (microseconds UTC), online or offline, by user and time. ts: when it was known, never before it happened.
-- Reads: feature_users, feature_advertisers.
with
known as (
    select
        user_id,
        advertiser_id,
        epoch_us(greatest(ts, reported_at)) as ts
    from conversions
),
final as (
    select
        feature_users.number as user_no,
        feature_advertisers.advertiser_no,
        known.ts
    from known
    join feature_users on feature_users.user_id = known.user_id
    join feature_advertisers on feature_advertisers.advertiser_id = known.advertiser_id
    where known.ts < $until
    order by user_no, known.ts, advertiser_no
)
select * from final
