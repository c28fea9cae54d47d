-- Grain: a pair of distinct items that a user engaged with within a day of each other, first < second.
-- Columns: first, second (numbers of semantic_items), users (how many). The last engagements of a sample of
-- users, so that the work stays bounded whatever the log's size; semantic_items (item_type, item_id, number)
-- are the items looked at, and unknown ones are left out.
with
engaged as (
    select
        e.user_id,
        i.number,
        e.ts
    from events e
    join semantic_items i on i.item_type = e.item_type and i.item_id = e.item_id
    where e.action in (select unnest($actions::varchar []))
),
sampled as (
    select
        user_id,
        number,
        ts
    from engaged
    qualify
        dense_rank() over (order by hash(user_id), user_id) <= $users
        and row_number() over (partition by user_id order by ts desc, number) <= $engagements
),
paired as (
    select distinct
        a.user_id,
        least(a.number, b.number) as first,
        greatest(a.number, b.number) as second
    from sampled a
    join sampled b
        on b.user_id = a.user_id
        and b.number <> a.number
        and b.ts between a.ts and a.ts + interval 1 day
),
final as (
    select
        first,
        second,
        count(*) as users
    from paired
    group by first, second
    order by first, second
)
select * from final
