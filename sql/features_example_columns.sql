-- Grain: an example, in order, with the columns that training reads as they are.
with
final as (
    select ts, user_no, item_no, surface_no, position, propensity, request, query
    from feature_examples
    order by example
)
select * from final
