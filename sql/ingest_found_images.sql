-- Grain: an image value of the stage. Columns: image, resolved (its absolute path or address), problem (why it is
-- refused, else null).
create or replace temp table resolved_images as
select
    unnest($names::varchar[]) as image,
    unnest($paths::varchar[]) as resolved,
    unnest($problems::varchar[]) as problem
