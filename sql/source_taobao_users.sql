-- Grain: a user of the Taobao display-ad log. Columns: user_id, age_bucket, gender, attributes (the other
-- codes of the profile), problem, _row.
with
records as (
    {records}
),
final as (
    select
        userid as user_id,
        age_level as age_bucket,
        case final_gender_code when '1' then 'M' when '2' then 'F' else final_gender_code end as gender,
        json_merge_patch(
            '{{}}'::json,
            json_object(
                'cms_segid', cms_segid,
                'cms_group_id', cms_group_id,
                'pvalue_level', pvalue_level,
                'shopping_level', shopping_level,
                'occupation', occupation,
                'new_user_class_level', new_user_class_level
            )
        ) as attributes,
        null::varchar as problem,
        _row
    from records
)
select * from final
