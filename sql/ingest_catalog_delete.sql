-- Grain: a row of the table whose content the file replaces.
delete from {target}
where {key} in (select key from changes where writes)
