-- Grain: a row of the stage that has an image.
update stage
set image = found.resolved
from resolved_images as found
where stage.image = found.image
