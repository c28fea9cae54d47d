-- Interests from evidence. With g the weighted, decayed sums of what a user did for a value (h those against it, at
-- most 0), G their total over the level, p the share of the user's profile and k = $prior:
--   weight = (g + h + k p) / (G + k),  certainty = G / (G + k),  lift = weight / the population's share.
-- The contributions of the evidence, the profile's among them, sum to the weight.
-- Users fall into $parts of about one size, of which this is $part: ordered lists cannot leave memory for the disk.
-- grain: a user and a value that the user's own doing speaks of; columns as in the table interests
with credits as (
    select
        evidence.user_id,
        evidence.kind,
        evidence.level,
        evidence.value,
        evidence.source,
        evidence.action,
        evidence.count,
        evidence.last_ts,
        evidence.amount * weights.weight * $scale as credit
    from interest_evidence as evidence
    join interest_action_weights as weights
        on weights.kind = evidence.kind
        and weights.source = evidence.source
        and (weights.action is null or weights.action = evidence.action)
    where hash(evidence.user_id) % $parts::ubigint = $part::ubigint
),

totals as (
    select user_id, kind, level, sum(greatest(credit, 0)) as total from credits group by all
),

scored as (
    select
        credits.user_id,
        credits.kind,
        credits.level,
        credits.value,
        any_value(totals.total) as total,
        sum(credits.credit) as credit,
        max(credits.last_ts) as last_ts,
        -- Sorting the list that was made takes a third of making it in order.
        list_transform(
            list_sort(
                list(
                    {
                        'rank': -abs(credits.credit),
                        'evidence': {
                            'source': credits.source,
                            'action': credits.action,
                            'count': credits.count,
                            'last_ts': credits.last_ts,
                            'contribution': credits.credit / (totals.total + $prior)
                        }
                    }
                )
            ),
            lambda ranked: ranked.evidence
        ) as evidence
    from credits
    join totals using (user_id, kind, level)
    group by credits.user_id, credits.kind, credits.level, credits.value
),

final as (
    select
        scored.user_id,
        scored.kind,
        scored.level,
        scored.value,
        (scored.credit + $prior * coalesce(priors.share, 0)) / (scored.total + $prior) as weight,
        weight / nullif(priors.popular, 0) as lift,
        scored.total / (scored.total + $prior) as certainty,
        scored.last_ts,
        list_append(
            scored.evidence,
            {
                'source': 'profile',
                'action': cast(null as varchar),
                'count': cast(null as bigint),
                'last_ts': cast(null as timestamp),
                'contribution': $prior * coalesce(priors.share, 0) / (scored.total + $prior)
            }
        ) as evidence
    from scored
    join interest_people as people using (user_id)
    left join interest_priors_now as priors
        on priors.profile = people.profile
        and priors.kind = scored.kind
        and priors.level = scored.level
        and priors.value = scored.value
)

select * from final
