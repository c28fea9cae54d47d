-- Grain: a record of Criteo's display advertising set. Columns: those of the table criteo, attributes, problem,
-- _row. The published file has no ids: a row is then known by its file and its place there.
with
records as (
    {records}
),
final as (
    select
        * replace (coalesce(nullif("Id", ''), concat(md5($file)[1:12], '-', _row)) as "Id"),
        null::json as attributes,
        null::varchar as problem
    from records
)
select * from final
