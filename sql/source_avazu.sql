-- Grain: a record of Avazu's click log. Columns: those of the table avazu (hour, published as YYMMDDHH, as a time,
-- its hour of day and its weekday, 1 for Monday), attributes, problem, _row.
with
records as (
    {records}
),
timed as (
    select
        *,
        case when length(hour) = 8 then try_strptime(hour, '%y%m%d%H') end as stamp
    from records
),
final as (
    select
        * exclude (stamp) replace (stamp as hour),
        extract(hour from stamp)::varchar as hour_of_day,
        extract(isodow from stamp)::varchar as weekday,
        null::json as attributes,
        case
            when stamp is null
            then concat('hour ', coalesce(to_json(left(hour, 80))::varchar, 'missing'), ' is not a time YYMMDDHH')
        end as problem
    from timed
)
select * from final
