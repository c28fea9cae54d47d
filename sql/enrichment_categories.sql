-- The categories that the catalogue uses.
-- grain: one row a category
-- columns: category
with final as (
    select distinct category
    from catalog
    where category is not null and trim(category) <> ''
    order by category
)

select * from final
