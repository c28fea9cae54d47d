-- Grain: an image of good rows of the stage. Columns: image.
select distinct image
from stage
where image is not null and reason is null
