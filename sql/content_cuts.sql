-- When the log's validation and test parts begin: what lies before the first may be learned from.
-- grain: one row; columns: valid, test (times), until (just behind the last event); all null without events
-- The parts are those of the rankers: shares of the impressions of ads, or of pins where no ad was shown.
-- parameters: $valid and $test, the shares before which each part begins
with shown as (
    select
        ts,
        item_type = 'ad' as is_ad
    from events
    where action = 'impression'
),

counted as (
    select
        ts,
        is_ad or not (select bool_or(is_ad) from shown) as counts
    from shown
),

every as (
    select ts from counted where counts
    union all
    -- a log of engagements alone is cut by those
    select ts from events where not exists (select 1 from shown)
),

final as (
    select
        quantile_disc(ts, $valid) as valid,
        quantile_disc(ts, $test) as test,
        (select max(ts) + interval 1 microsecond from events) as until
    from every
)

select * from final
