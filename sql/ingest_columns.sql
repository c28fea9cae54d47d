-- Grain: a record of a csv or parquet file. Columns: the table's own; attributes: the other columns that have
-- a value, as one JSON object, or null; problem: null, the reader itself being strict.
select
    {columns},
    {attributes} as attributes,
    null::varchar as problem
from {scan}
