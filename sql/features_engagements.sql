-- Grain: a positive action (action number in $positive) on a catalogue item, by user and time: the histories.
with
final as (
    select ts, user_no, item_no, action
    from feature_log
    where list_contains($positive, action) and item_no is not null
    order by user_no, ts, item_no, action
)
select * from final
