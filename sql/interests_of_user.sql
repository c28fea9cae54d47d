-- The strongest $limit interests of a user in every kind and level: those with evidence of his own, and what users of
-- his profile want, which he has not spoken of: weight = (1 - certainty) · share.
-- grain: a kind, level and value; columns: kind, level, value, weight, lift, certainty, last_ts, evidence
with own as (
    select * exclude (user_id) from interests where user_id = $user
),

certainties as (
    select kind, level, any_value(certainty) as certainty from own group by kind, level
),

expected as (
    select
        interest_priors.kind,
        interest_priors.level,
        interest_priors.value,
        (1 - coalesce(certainties.certainty, 0)) * interest_priors.share as weight,
        weight / nullif(interest_priors.popular, 0) as lift,
        coalesce(certainties.certainty, 0) as certainty,
        cast(null as timestamp) as last_ts,
        [
            {
                'source': 'profile',
                'action': cast(null as varchar),
                'count': cast(null as bigint),
                'last_ts': cast(null as timestamp),
                'contribution': (1 - coalesce(certainties.certainty, 0)) * interest_priors.share
            }
        ] as evidence
    from interest_profiles
    join interest_priors using (profile)
    left join certainties using (kind, level)
    anti join own
        on own.kind = interest_priors.kind
        and own.level = interest_priors.level
        and own.value = interest_priors.value
    where interest_profiles.user_id = $user
),

together as (
    select kind, level, value, weight, lift, certainty, last_ts, evidence from own
    union all
    select * from expected
),

final as (
    select *
    from together
    qualify row_number() over (partition by kind, level order by weight desc, value) <= $limit
    order by kind, level, weight desc, value
)

select * from final
