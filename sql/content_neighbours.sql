-- Pictures that the same users engaged with close in time: pairs that belong together for reasons of their own.
-- grain: a picture and a neighbour of it, strongest first; columns: item, neighbour (picture rows), weight
-- Two pictures meet when a user engaged with both within $window seconds; a meeting counts 2^-(age / half-life).
-- weight: pointwise mutual information of meeting (Church & Hanks 1990, equation 1), so that what everyone
-- engages with is nobody's neighbour, times users / (users + 1) against chance meetings (Pantel & Lin 2002).
-- needs: content_rows(item_type, item_id, number)
-- parameters: $actions, $until (only earlier events count), $window, $half_life (seconds),
--   $per_user (latest engagements of a user), $per_item (neighbours kept)
with engaged as (
    select
        events.user_id,
        content_rows.number as item,
        max(events.ts) as ts
    from events
    join content_rows
        on content_rows.item_type = events.item_type and content_rows.item_id = events.item_id
    where list_contains($actions, events.action) and events.ts < $until
    group by events.user_id, content_rows.number
),

recent as (
    select *
    from engaged
    qualify row_number() over (partition by user_id order by ts desc, item) <= $per_user
),

met as (
    select
        recent.item,
        other.item as neighbour,
        count(*) as users,
        sum(pow(2, -epoch(cast($until as timestamp) - greatest(recent.ts, other.ts)) / $half_life)) as weight
    from recent
    join recent as other
        on other.user_id = recent.user_id
        and other.item <> recent.item
        and abs(epoch(recent.ts) - epoch(other.ts)) <= $window
    group by recent.item, other.item
),

totals as (
    select
        item,
        sum(weight) as weight
    from met
    group by item
),

scored as (
    select
        met.item,
        met.neighbour,
        -- rounded, so that the order of summing cannot change what is drawn
        round(
            ln(met.weight * (select sum(weight) from totals) / (totals.weight * other.weight))
            * met.users / (met.users + 1.0),
            6
        ) as weight
    from met
    join totals on totals.item = met.item
    join totals as other on other.item = met.neighbour
),

final as (
    select *
    from scored
    where weight > 0
    qualify row_number() over (partition by item order by weight desc, neighbour) <= $per_item
    order by item, weight desc, neighbour
)

select * from final
