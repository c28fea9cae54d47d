-- Grain: a user of an iPinYou log, as he stands in its last line of his. Columns: user_id, country, attributes
-- (region, city, tags), problem, _row (his first).
with
records as (
    {records}
),
named as (
    select
        *,
        coalesce(nullif(nullif(ipinyouid, 'null'), ''), concat('address-', "IP")) as user_id
    from records
),
final as (
    select
        user_id,
        'CN' as country,
        json_object(
            'region', arg_max(region, _row),
            'city', arg_max(city, _row),
            'tags', arg_max(nullif(usertag, 'null'), _row)
        ) as attributes,
        null::varchar as problem,
        min(_row) as _row
    from named
    group by user_id
)
select * from final
