-- The relevance grades that one model gave with one wording.
-- grain: one row a query, item type and item
-- columns: query, item_type, item_id, content_hash, grade, problem, tokens_in, tokens_out
-- parameters: $source, $version
with final as (
    select
        query,
        item_type,
        item_id,
        content_hash,
        grade,
        problem,
        tokens_in,
        tokens_out
    from relevance
    where source = $source and prompt_version = $version
)

select * from final
