-- Grain: one row. Columns: events (of an item that no catalogue knows).
with
known as (
    select 'ad' as item_type, ad_id as item_id from ads
    union all
    select 'pin' as item_type, pin_id as item_id from pins
),
final as (
    select count(*) as events
    from events
    anti join known using (item_type, item_id)
    where events.item_id is not null and events.item_type in ('ad', 'pin')
)
select * from final
