-- The columns of a logged table that off-policy evaluation reads; {{columns}} and {{source}} are put in, $path is
-- the file.
-- grain: a row of the file; columns: n_* numbers (null where there is none), bad_* whether a value is no number,
-- v_* of any type
with final as (
    select {columns}
    from {source}
)

select * from final
