-- Grain: a row of what was just appended whose key stands in the table already or earlier in the file: the
-- first stands. Columns: row (its rowid).
create or replace temp table repeats as
with
appended as (
    select rowid as row, {key} as key
    from {destination}
    where rowid >= $first
),
ranked as (
    select
        row,
        row_number() over (partition by key order by row) as nth
    from appended
    where hash(key) in (select hashed from doubled)
),
known as (
    {known}
),
final as (
    select row
    from ranked
    where nth > 1
    union
    select row
    from appended
    where key in (select key from known)
)
select * from final
