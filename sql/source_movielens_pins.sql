-- Grain: a movie of MovieLens in RecBole's atomic files. Columns: pin_id, title, description (its genres),
-- category (the first genre), created_at (the first day of the year of release, when there is one),
-- attributes (genres), problem, _row.
with
records as (
    {records}
),
typed as (
    select
        _row,
        item_id,
        -- A few titles still carry the year.
        regexp_replace(movie_title, ' \(([0-9]{{4}})\)$', '') as title,
        coalesce(
            try_cast(release_year as integer),
            try_cast(regexp_extract(movie_title, '\(([0-9]{{4}})\)$', 1) as integer)
        ) as year,
        list_filter(string_split(class, ' '), lambda genre: genre <> '') as genres
    from records
),
final as (
    select
        item_id as pin_id,
        title,
        array_to_string(genres, ', ') as description,
        genres[1] as category,
        case when year between 1900 and 2100 then make_timestamp(year, 1, 1, 0, 0, 0) end as created_at,
        case when len(genres) > 0 then json_object('genres', genres) end as attributes,
        null::varchar as problem,
        _row
    from typed
)
select * from final
