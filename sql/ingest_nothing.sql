-- Grain: none: an empty file has no rows. Columns: attributes, problem.
select null::json as attributes, null::varchar as problem
where false
