-- Grain: a refused row of what was just appended. Columns: row (the number of the record in the file, from 0),
-- reason.
create or replace temp table refused as
select
    coalesce((attributes ->> 'row')::bigint, rowid - $first) as row,
    attributes ->> 'reason' as reason
from {destination}
where rowid >= $first and starts_with(attributes::varchar, concat('{{"refused":"', $mark, '"'))
