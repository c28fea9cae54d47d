-- What logged queries ask for in every kind: what the kind itself says of a query, else what the items are of the
-- categories that the query's words ask for.
-- grain: a query, a kind, a level and a value; columns: query, kind, level, value, share
with of_items as (
    select
        catalog.category,
        interest_members.kind,
        interest_members.level,
        interest_members.value,
        sum(interest_members.share) as amount
    from interest_members
    join catalog using (item_type, item_id)
    where catalog.category is not null
    group by all
),

of_categories as (
    select
        category,
        kind,
        level,
        value,
        amount / sum(amount) over (partition by category, kind, level) as share
    from of_items
),

by_category as (
    select
        interest_query_categories.query,
        of_categories.kind,
        of_categories.level,
        of_categories.value,
        sum(interest_query_categories.share * of_categories.share) as share
    from interest_query_categories
    join of_categories using (category)
    anti join interest_query_values
        on interest_query_values.query = interest_query_categories.query
        and interest_query_values.kind = of_categories.kind
    group by all
),

final as (
    select query, kind, level, value, share from by_category
    union all
    select query, kind, level, value, share from interest_query_values
)

select * from final
