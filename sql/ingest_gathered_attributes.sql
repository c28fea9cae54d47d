-- An expression: the file's other columns that have a value, as one JSON object on top of its own attributes.
nullif(json_merge_patch({base}, json_merge_patch('{{}}'::json, json_object({others})))::varchar, '{{}}')::json
