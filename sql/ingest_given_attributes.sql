-- An expression: the text of a file's own attributes column as a JSON object; kept as text when it is none.
case
    when {value} is null then '{{}}'::json
    when not json_valid({value}) then json_object('attributes', {value})
    when json_type({value}) = 'OBJECT' then {value}::json
    else json_object('attributes', {value}::json)
end
