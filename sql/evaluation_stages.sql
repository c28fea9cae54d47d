-- What every stage of the funnel was given and kept, over all logged requests.
-- grain: a stage; columns: stage, requests, candidates, kept
with final as (
    select
        stage,
        count(distinct request_id) as requests,
        count(*) as candidates,
        count(*) filter (where kept) as kept
    from funnel
    group by stage
    order by list_position(['retrieval', 'lightweight', 'heavy', 'auction'], stage)
)

select * from final
