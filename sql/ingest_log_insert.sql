-- Grain: a good row of the stage whose key is neither in the table nor earlier in the file: the first stands.
insert into {target} ({columns}, attributes)
select {columns}, attributes
from stage
where
    reason is null
    and not exists (select 1 from {existing} as known where known.{key} = stage.{key})
    and not exists (select 1 from repeated where repeated.row = stage.rowid)
