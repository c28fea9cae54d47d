-- Grain: an outside table that the examples depend on: its rows and a hash of them that ignores their order.
with
final as (
    select 'users' as name, count(*) as rows, sum(hash(users)) as content from users
    union all
    select 'campaigns', count(*), sum(hash(campaigns)) from campaigns
    union all
    select 'ads', count(*), sum(hash(ads)) from ads
    union all
    select 'pins', count(*), sum(hash(pins)) from pins
    union all
    select 'events', count(*), sum(hash(events)) from events
    union all
    select 'conversions', count(*), sum(hash(conversions)) from conversions
)
select * from final
