-- Grain: one row. Columns: changed (rows that brought something), new (those of them with a key not seen before).
select
    count(*) filter (changed) as changed,
    count(*) filter (is_new) as new
from changes
