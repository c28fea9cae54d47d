-- Whom campaigns want to reach: the `targeting` among their attributes.
-- Grain: a campaign that targets at all.
with final as (
    select campaign_id, cast(json_extract(attributes, '$.targeting') as varchar) as targeting
    from campaigns
    where json_type(attributes, '$.targeting') is not null and json_type(attributes, '$.targeting') <> 'NULL'
    order by campaign_id
)
select * from final
