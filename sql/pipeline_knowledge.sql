-- What the attributes of items are made of: one row, a hash of every answer that `enrich` keeps.
-- grain: one row; columns: fingerprint
with
answers as (
    select md5(concat_ws('|', item_type, item_id, source, prompt_version, payload)) as answer
    from enrichments
),

final as (
    select coalesce(md5(string_agg(answer, ',' order by answer)), 'nothing') as fingerprint from answers
)

select * from final
