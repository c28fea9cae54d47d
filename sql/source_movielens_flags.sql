-- Grain: a movie of MovieLens as GroupLens publishes it, with a flag a genre in the order of u.genre. Columns:
-- those of source_movielens_pins.
with
records as (
    {records}
),
typed as (
    select
        _row,
        item_id,
        regexp_replace(movie_title, ' \(([0-9]{{4}})\)$', '') as title,
        coalesce(
            try_cast(regexp_extract(movie_title, '\(([0-9]{{4}})\)$', 1) as integer),
            try_cast(right(release_date, 4) as integer)
        ) as year,
        list_filter(
            [
                case genre0 when '1' then 'unknown' end,
                case genre1 when '1' then 'Action' end,
                case genre2 when '1' then 'Adventure' end,
                case genre3 when '1' then 'Animation' end,
                case genre4 when '1' then 'Children''s' end,
                case genre5 when '1' then 'Comedy' end,
                case genre6 when '1' then 'Crime' end,
                case genre7 when '1' then 'Documentary' end,
                case genre8 when '1' then 'Drama' end,
                case genre9 when '1' then 'Fantasy' end,
                case genre10 when '1' then 'Film-Noir' end,
                case genre11 when '1' then 'Horror' end,
                case genre12 when '1' then 'Musical' end,
                case genre13 when '1' then 'Mystery' end,
                case genre14 when '1' then 'Romance' end,
                case genre15 when '1' then 'Sci-Fi' end,
                case genre16 when '1' then 'Thriller' end,
                case genre17 when '1' then 'War' end,
                case genre18 when '1' then 'Western' end
            ],
            lambda genre: genre is not null
        ) as genres
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
