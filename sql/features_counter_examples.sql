-- Grain: an example whose entity has a row before it. The last row of the entity's history strictly before the
-- example's time: what happens at the same instant is not known yet.
with
final as (
    select probes.example, probes.ts as asked, history.* exclude (entity, ts)
    from feature_probes as probes
    asof join feature_history as history
        on history.entity = probes.entity and history.ts < probes.ts
)
select * from final
