-- Grain: a row of the stage. Columns: row, key, is_new (the key was in no earlier row and not in the
-- table), changed (new, or other content than before it), writes (the row that its key ends with, if anything
-- about the key changed).
create or replace temp table changes as
with
good as (
    select
        rowid as row,
        {key} as key,
        row({columns}, attributes) as content
    from stage
),
known as (
    select
        {key} as key,
        row({columns}, attributes) as content
    from {existing} as existing
    where {key} in (select key from good)
),
compared as (
    select
        good.row,
        good.key,
        row_number() over file_order = 1 as first,
        row_number() over file_order = count(*) over (partition by good.key) as last,
        known.key is not null as was_known,
        good.content is distinct from known.content as differs_from_known,
        good.content is distinct from lag(good.content) over file_order as differs_from_previous
    from good
    left join known on known.key = good.key
    window file_order as (partition by good.key order by good.row)
),
judged as (
    select
        row,
        key,
        last,
        first and not was_known as is_new,
        case when first then not was_known or differs_from_known else differs_from_previous end as changed
    from compared
),
final as (
    select
        row,
        key,
        is_new,
        changed,
        last and bool_or(changed) over (partition by key) as writes
    from judged
)
select * from final
