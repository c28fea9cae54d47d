-- Paths of the files that brought something in, newest first: a synthetic world has its truth beside one of them.
-- grain: a path; columns: path
with loaded as (
    select path, max(finished_at) as finished_at
    from files
    where inserted + duplicate > 0
    group by path
),

final as (
    select path
    from loaded
    order by finished_at desc, path
)

select * from final
