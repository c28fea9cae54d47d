-- Grain: a conversion of $kinds by a known user at an advertiser of the catalogue. kind: from 0, the position in
-- $kinds. ts, reported: microseconds UTC; the log cannot have heard of it before it happened. value: money,
-- $default_value where the log names none, at most $max_value (0: no limit).
with
valued as (
    select *, coalesce(value, $default_value) as money
    from conversions
    where $offline or channel is distinct from 'offline'
),
final as (
    select
        row_number() over (order by valued.ts, valued.conversion_id) as conversion,
        epoch_us(valued.ts) as ts,
        epoch_us(greatest(valued.ts, valued.reported_at)) as reported,
        feature_users.number as user_no,
        feature_advertisers.advertiser_no,
        list_position($kinds, valued.kind) - 1 as kind,
        case when $max_value > 0 then least(valued.money, $max_value) else valued.money end as value
    from valued
    join feature_users on feature_users.user_id = valued.user_id
    join feature_advertisers on feature_advertisers.advertiser_id = valued.advertiser_id
    where list_contains($kinds, valued.kind)
)
select * from final
