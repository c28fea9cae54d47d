-- Grain: a key that any object of a jsonl file has. Columns: key.
with
objects as (
    select unnest(json_keys(json)) as key
    from read_json_objects(
        $path, format = 'newline_delimited', ignore_errors = true, compression = $compression
    )
),
final as (
    select distinct key
    from objects
)
select * from final
