-- What of the catalogue interests depend on, as one number that ignores the order of rows.
-- grain: one row; columns: items, content
with final as (
    select
        count(*) as items,
        sum(hash(item_type, item_id, title, description, category, advertiser_id, vertical)) as content
    from catalog
)

select * from final
