-- Grain: one row: the end of the log in microseconds UTC, the last that was heard of anything.
with
moments as (
    select max(epoch_us(ts)) as ts from events
    union all
    select max(epoch_us(greatest(ts, reported_at))) from conversions
),
final as (select coalesce(max(ts), 0) as ts from moments)
select * from final
