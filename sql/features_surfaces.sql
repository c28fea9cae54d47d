-- Grain: a surface of the log; number: dense, in the order of the names.
with
named as (select distinct surface from events where surface is not null),
final as (
    select cast(row_number() over (order by surface) - 1 as integer) as number, surface
    from named
    order by number
)
select * from final
