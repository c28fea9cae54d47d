-- Grain: a line of a jsonl file that is not blank. Columns: the table's own, as text; attributes: the other
-- keys of the object, or null; problem: why the line is no object, or null.
with
objects as (
    select
        json,
        json_transform(json, $structure) as record
    from {scan}
),
final as (
    select
        {columns},
        -- Looked at only when the object has more keys than the columns found in it.
        case
            when len(json_keys(json)) > {present}
            then nullif(
                json_merge_patch(
                    {base},
                    json_merge_patch(json, $strip::json)
                )::varchar,
                '{{}}'
            )::json
        end as attributes,
        case
            when json is null then 'not valid JSON'
            when {key} is null and json_type(json) <> 'OBJECT' then 'not a JSON object'
        end as problem
    from objects
)
select * from final
