-- Grain: a kind of conversion in the log, most frequent first; conversions: how many. $offline: whether those of
-- channel offline count.
with
final as (
    select kind, count(*) as conversions
    from conversions
    where kind is not null and ($offline or channel is distinct from 'offline')
    group by kind
    order by conversions desc, kind
)
select * from final
