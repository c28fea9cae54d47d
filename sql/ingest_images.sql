-- Grain: an image of the stage. Columns: image.
select distinct image
from stage
where image is not null
