-- Logged queries whose intents are not stored.
-- grain: a query; columns: query
with final as (
    select distinct query
    from events
    anti join query_intents using (query)
    where query is not null
    order by query
)

select * from final
