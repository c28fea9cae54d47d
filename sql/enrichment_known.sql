-- What one model has answered with one wording.
-- grain: one row an item
-- columns: item_type, item_id, content_hash, payload, problem
-- parameters: $source, $version
with final as (
    select
        item_type,
        item_id,
        content_hash,
        payload::varchar as payload,
        problem
    from enrichments
    where source = $source and prompt_version = $version
)

select * from final
