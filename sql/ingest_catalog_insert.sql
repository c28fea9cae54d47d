-- Grain: a key that the file brings or changes, with the last content the file gives it.
insert into {target} ({columns}, attributes)
select {columns}, attributes
from stage
where exists (select 1 from changes where changes.row = stage.rowid and changes.writes)
