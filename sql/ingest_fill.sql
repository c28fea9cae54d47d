-- Grain: a record of a file, in its order, refused ones too: their attributes begin with a mark, and say why.
-- Columns: the table's own, typed, and attributes.
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
    {names},
    case
        when reason is null then attributes
        else json_object('refused', $mark, 'row', {row}, 'reason', reason)
    end as attributes
from judged
