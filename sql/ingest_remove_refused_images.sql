-- Grain: a row of the stage whose image is refused.
delete from stage
where image in (select image from resolved_images where problem is not null)
