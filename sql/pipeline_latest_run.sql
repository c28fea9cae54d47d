-- The last finished run of each stage.
-- grain: one row a stage; columns: stage, run_id, fingerprint, finished_at
with ranked as (
    select *, row_number() over (partition by stage order by finished_at desc) as recency
    from runs
),

final as (
    select stage, run_id, fingerprint, finished_at
    from ranked
    where recency = 1
)

select * from final
