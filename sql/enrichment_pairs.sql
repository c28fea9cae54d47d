-- Pairs of a query and an item that was shown for it, in a random order that is always the same.
-- grain: one row a query (lower case, single blanks), item type and item that the catalogue holds
-- columns: query, item_type, item_id
-- parameters: $kinds, a list of item types; $users, how many different users must have asked the query
with
asked as (
    select
        lower(trim(regexp_replace(query, '\s+', ' ', 'g'))) as query,
        user_id,
        item_type,
        item_id
    from events
    where action = 'impression' and list_contains($kinds, item_type) and trim(query) <> ''
),

common as (
    select query
    from asked
    group by query
    having count(distinct user_id) >= $users
),

shown as (
    select distinct
        query,
        item_type,
        item_id
    from asked
    semi join common using (query)
    semi join catalog using (item_type, item_id)
),

final as (
    select *
    from shown
    order by md5(concat_ws(chr(10), query, item_type, item_id)), query, item_type, item_id
)

select * from final
