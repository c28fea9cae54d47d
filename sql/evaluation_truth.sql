-- The truth of evaluated examples: registered are evaluated_rows(row, ts, user_id, item_id) and
-- true_impressions(request_id, item_id, p_*).
-- grain: an evaluated row that the truth knows; columns: row, p_*
with impressions as (
    select request_id, item_id, user_id, epoch_us(ts) as ts
    from events
    where action = 'impression' and request_id is not null
),

matched as (
    select
        evaluated_rows.row,
        true_impressions.* exclude (request_id, item_id),
        row_number() over (partition by evaluated_rows.row order by impressions.request_id) as choice
    from evaluated_rows
    join impressions using (ts, user_id, item_id)
    join true_impressions using (request_id, item_id)
),

final as (
    select * exclude (choice)
    from matched
    where choice = 1
)

select * from final
