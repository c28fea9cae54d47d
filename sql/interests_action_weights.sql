-- What each source and action counts, by kind. Being shown ($impression) counts in relation to what follows from it:
-- all impressions together count $impression times what all wanted actions on the site count together, so that the
-- setting means the same where one in ten and where one in fifty is clicked.
-- grain: a kind, source and action (null: any action); columns: kind, source, action, weight
with kinds as (
    select distinct kind from interest_evidence
),

followed as (
    select evidence.kind, sum(evidence.amount * weights.weight) as credit
    from interest_evidence as evidence
    join interest_given_weights as weights using (source, action)
    where evidence.source = 'on_site' and weights.weight > 0
    group by evidence.kind
),

shown as (
    select kind, sum(amount) as amount
    from interest_evidence
    where source = 'on_site' and action = 'impression'
    group by kind
),

final as (
    select kinds.kind, weights.source, weights.action, weights.weight
    from kinds
    cross join interest_given_weights as weights
    union all
    select shown.kind, 'on_site', 'impression', $impression * coalesce(followed.credit, 0) / shown.amount
    from shown
    left join followed using (kind)
    where shown.amount > 0
)

select * from final
