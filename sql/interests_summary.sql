-- What the population wants: for every value, how many users lead with it, and by how many it is wanted above usual.
-- grain: a kind, level and value; columns: kind, level, value, share (the population's), users (with evidence),
-- leading (users whose strongest value of the level it is), above (users who want it at least half more than usual)
with ranked as (
    select *, row_number() over (partition by user_id, kind, level order by weight desc, value) as place
    from interests
),

counted as (
    select
        kind,
        level,
        value,
        count(*) as users,
        count(*) filter (where place = 1) as leading,
        count(*) filter (where lift >= 1.5) as above
    from ranked
    group by all
),

popular as (
    select kind, level, value, any_value(popular) as share from interest_priors group by all
),

final as (
    select counted.kind, counted.level, counted.value, popular.share, counted.users, counted.leading, counted.above
    from counted
    left join popular using (kind, level, value)
    order by counted.kind, counted.level, counted.leading desc, counted.value
)

select * from final
