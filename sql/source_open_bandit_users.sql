-- Grain: a round of the Open Bandit Dataset, for who was there. Columns: user_id (of the four hashed features: all
-- that is published of users), attributes (user_features), problem, _row. Alike users come many times.
with
records as (
    {records}
),
final as (
    select
        md5(concat_ws('|', user_feature_0, user_feature_1, user_feature_2, user_feature_3))[1:16] as user_id,
        json_object(
            'user_features',
            [user_feature_0, user_feature_1, user_feature_2, user_feature_3]
        ) as attributes,
        null::varchar as problem,
        _row
    from records
)
select * from final
