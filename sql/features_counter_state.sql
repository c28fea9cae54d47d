-- Grain: an entity: its sums and last times after all of its events, the last row of its history.
with
final as (
    select entity, sum(columns('^y')), max(columns('^l'))
    from feature_signals
    group by entity
    order by entity
)
select * from final
