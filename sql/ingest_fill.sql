-- Grain: a record of a file, in its order, refused ones too: those have a null key and the reason in
-- attributes. Columns: the table's own, typed, and attributes.
insert into {destination} ({names}, attributes)
with
source as (
{source}
),
typed as (
    select
        {typed},
        {raw}
        {number}
        attributes,
        problem
    from source
),
judged as (
    select
        *,
        {reason} as reason
    from typed
)
select
    {kept},
    case when reason is null then attributes else json_object('row', {row}, 'reason', reason) end
from judged
