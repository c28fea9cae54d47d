-- Grain: a row of the stage whose image is refused. Columns: row (the number of the record in the file, from 0),
-- reason.
insert into refused
select
    stage.rowid - $first as row,
    found.problem as reason
from stage
inner join resolved_images as found on stage.image = found.image
where found.problem is not null
