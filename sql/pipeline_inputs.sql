-- What the given tables were made of: one row, a hash of the files that brought something in.
-- grain: one row; columns: fingerprint
with loaded as (
    select distinct fingerprint
    from files
    where list_contains($tables, table_name) and inserted > 0
),

final as (
    select coalesce(md5(string_agg(fingerprint, ',' order by fingerprint)), 'nothing') as fingerprint
    from loaded
)

select * from final
