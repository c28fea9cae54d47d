-- The taxonomy of a catalogue that has none of its own: each category below the vertical that most of its ads have.
-- grain: a category; columns: topic (vertical/category, or the category alone), category
with counted as (
    select category, vertical, count(*) as items
    from catalog
    where category is not null
    group by category, vertical
),

final as (
    select
        concat_ws(
            '/',
            replace(arg_max(vertical, (items, vertical)) filter (where vertical is not null), '/', ' '),
            replace(category, '/', ' ')
        ) as topic,
        category
    from counted
    group by category
    order by topic, category
)

select * from final
