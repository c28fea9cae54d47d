-- Grain: a user of MovieLens. Columns: user_id, age_bucket, gender, attributes (age, occupation, zip_code),
-- problem, _row.
with
records as (
    {records}
),
typed as (
    select
        *,
        try_cast(age as integer) as years
    from records
),
final as (
    select
        user_id,
        case
            when years < 18 then 'under 18'
            when years < 25 then '18-24'
            when years < 35 then '25-34'
            when years < 45 then '35-44'
            when years < 55 then '45-54'
            when years >= 55 then '55+'
        end as age_bucket,
        gender,
        json_merge_patch(
            '{{}}'::json, json_object('age', years, 'occupation', occupation, 'zip_code', zip_code)
        ) as attributes,
        case
            when age is not null and coalesce(years not between 0 and 130, true)
            then concat('age ', to_json(left(age, 80))::varchar, ' is not a number of years')
        end as problem,
        _row
    from typed
)
select * from final
