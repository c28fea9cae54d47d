-- What users of a profile want by themselves: the population's shares times, for gender, age and country each, how
-- much more or less the users of that entry want the value, smoothed by $smoothing; normalised within the level.
-- grain: a profile, kind, level and value; columns: profile, kind, level, value, share, popular (the population's share)
with gains as (
    select
        evidence.user_id,
        evidence.kind,
        evidence.level,
        evidence.value,
        sum(evidence.amount * weights.weight) * $scale as gained
    from interest_evidence as evidence
    join interest_action_weights as weights
        on weights.kind = evidence.kind
        and weights.source = evidence.source
        and (weights.action is null or weights.action = evidence.action)
    where weights.weight > 0
    group by all
),

popular as (
    select
        kind,
        level,
        value,
        sum(gained) / sum(sum(gained)) over (partition by kind, level) as share
    from gains
    group by kind, level, value
    having sum(gained) > 0
),

entries as (
    select distinct profile, unnest([{'field': 'gender', 'entry': gender}, {'field': 'age_bucket', 'entry': age_bucket}, {'field': 'country', 'entry': country}], recursive := true)
    from interest_people
),

entry_gains as (
    select entries.field, entries.entry, gains.kind, gains.level, gains.value, sum(gains.gained) as gained
    from gains
    join interest_people as people using (user_id)
    join entries using (profile)
    group by all
),

entry_totals as (
    select field, entry, kind, level, sum(gained) as total from entry_gains group by all
),

lifts as (
    select
        entry_totals.field,
        entry_totals.entry,
        popular.kind,
        popular.level,
        popular.value,
        (coalesce(entry_gains.gained, 0) + $smoothing * popular.share)
        / (entry_totals.total + $smoothing) / popular.share as lift
    from entry_totals
    join popular using (kind, level)
    left join entry_gains using (field, entry, kind, level, value)
),

-- A profile that nobody with evidence shares has no lift for some entry: it counts as 1.
profiles as (
    select distinct profile from interest_people
),

lifted as (
    select entries.profile, lifts.kind, lifts.level, lifts.value, exp(sum(ln(lifts.lift))) as lift
    from entries
    join lifts using (field, entry)
    group by all
),

raw as (
    select
        profiles.profile,
        popular.kind,
        popular.level,
        popular.value,
        popular.share * coalesce(lifted.lift, 1.0) as share,
        popular.share as popular
    from profiles
    cross join popular
    left join lifted using (profile, kind, level, value)
),

final as (
    select
        profile,
        kind,
        level,
        value,
        share / sum(share) over (partition by profile, kind, level) as share,
        popular
    from raw
)

select * from final
