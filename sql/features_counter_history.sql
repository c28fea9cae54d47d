-- Grain: an event of an entity. y..: running sums up to and including its time, in the scale of the reference
-- time; l..: the last time of a signal. Rows of the same entity and time hold the same values.
with
final as (
    select
        entity,
        ts,
        sum(columns('^y')) over entity_so_far,
        max(columns('^l')) over entity_so_far
    from feature_signals
    window entity_so_far as (
        partition by entity order by ts range between unbounded preceding and current row
    )
)
select * from final
