-- Grain: a row of what was just appended that repeats an earlier one.
delete from {destination}
where rowid >= $first and rowid in (select row from repeats)
