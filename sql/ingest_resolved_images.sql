-- Grain: a good row of the stage that has an image: its absolute path, or why it is refused.
update stage
set image = found.resolved, reason = found.problem
from resolved_images as found
where stage.image = found.image and stage.reason is null
