-- Grain: a thing that the examples depend on: files that were loaded, then the size of every outside table.
with
loaded as (select 'file' as kind, fingerprint as name, inserted as count from files),
sizes as (
    select 'table' as kind, 'users' as name, count(*) as count from users
    union all select 'table', 'pins', count(*) from pins
    union all select 'table', 'ads', count(*) from ads
    union all select 'table', 'campaigns', count(*) from campaigns
    union all select 'table', 'events', count(*) from events
    union all select 'table', 'conversions', count(*) from conversions
),
final as (
    select * from loaded
    union all
    select * from sizes
    order by all
)
select * from final
