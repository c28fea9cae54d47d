-- Pictures by how many users engaged with them.
-- grain: a picture; columns: item (picture row), users; most first
-- needs: content_rows(item_type, item_id, number)
-- parameters: $actions, $until (only earlier events count)
with final as (
    select
        content_rows.number as item,
        count(distinct events.user_id) as users
    from events
    join content_rows
        on content_rows.item_type = events.item_type and content_rows.item_id = events.item_id
    where list_contains($actions, events.action) and events.ts < $until
    group by content_rows.number
    order by users desc, item
)

select * from final
