-- Grain: enrichments, one row an item and source (which model); relevance, one row a pair of a query and an
-- item and source. A row holds either a result or the problem why the answer was refused; an answer is used
-- again as long as content_hash and prompt_version stay. source is clip:<vectors> | llm:<model> | student:<run>.

create table enrichments (
    item_type varchar, item_id varchar, content_hash varchar, source varchar, prompt_version varchar,
    payload json, problem varchar, tokens_in bigint, tokens_out bigint, created_at timestamp
);

create table relevance (
    query varchar, item_type varchar, item_id varchar, content_hash varchar, source varchar,
    prompt_version varchar, grade double, problem varchar, tokens_in bigint, tokens_out bigint,
    created_at timestamp
);

-- Grain: an item with attributes: those of a language model before those of CLIP, the newest first.
create view item_attributes as
with
ranked as (
    select
        item_type,
        item_id,
        source,
        payload,
        created_at,
        row_number() over (
            partition by item_type, item_id
            order by starts_with(source, 'llm:') desc, created_at desc, source
        ) as place
    from enrichments
    where payload is not null
),
final as (
    select * exclude (place)
    from ranked
    where place = 1
)
select * from final;
