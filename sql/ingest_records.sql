-- Grain: a line of a jsonl file that is not blank; all null when the line is no JSON object. Columns: the table's
-- own, as text; attributes: null, no object having other keys; problem: null.
select
    {columns},
    null::json as attributes,
    null::varchar as problem
from read_json(
    $path,
    format = 'newline_delimited',
    ignore_errors = true,
    compression = $compression,
    columns = $columns
)
