-- Grain: an item of a campaign of the Open Bandit Dataset. Columns: pin_id, category (item_feature_3, the coarsest
-- of its hashed features), attributes (item_features), problem, _row. There are neither titles nor pictures. The
-- campaign is the folder of the file.
with
records as (
    {records}
),
final as (
    select
        concat(regexp_extract($file, '([^/\\]+)[/\\][^/\\]+$', 1), '-', item_id) as pin_id,
        item_feature_3 as category,
        json_object(
            'item_features',
            [item_feature_0, item_feature_1, item_feature_2, item_feature_3]
        ) as attributes,
        case when item_id is null then 'item_id is missing' end as problem,
        _row
    from records
)
select * from final
