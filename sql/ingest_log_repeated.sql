-- Grain: a good row of the stage whose key an earlier good row of the same file has. Columns: row.
create or replace temp table repeated as
with
ranked as (
    select
        rowid as row,
        row_number() over (partition by {key} order by rowid) as nth
    from stage
    where reason is null
),
final as (
    select row
    from ranked
    where nth > 1
)
select * from final
