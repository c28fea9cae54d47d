-- Grain: an item of a file of sequences, where it is named first. Columns: pin_id, attributes (none), problem, _row.
with
records as (
    {records}
),
final as (
    select
        item_id as pin_id,
        null::json as attributes,
        case when item_id is null then 'item_id is missing' end as problem,
        min(_row) as _row
    from records
    group by item_id
)
select * from final
