-- What people ask for: the queries of the log, most frequent first, then the catalogue's categories, largest first.
-- grain: a text; columns: text (lower case), asked (requests with it; null for a category)
-- parameters: $limit, rows of each of the two
with queries as (
    select
        lower(trim(query)) as text,
        count(distinct coalesce(request_id, event_id)) as asked
    from events
    where trim(query) <> ''
    group by 1
    order by asked desc, text
    limit $limit
),

categories as (
    select
        lower(trim(category)) as text,
        count(*) as items
    from catalog
    where trim(category) <> ''
    group by 1
    order by items desc, text
    limit $limit
),

final as (
    select text, asked, 0 as place, -asked as rank from queries
    union all
    select text, null as asked, 1 as place, -items as rank from categories
    where text not in (select text from queries)
    order by place, rank, text
)

select text, asked from final
