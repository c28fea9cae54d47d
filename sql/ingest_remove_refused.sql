-- Grain: a refused row of what was just appended.
delete from {destination}
where rowid >= $first and starts_with(attributes::varchar, concat('{{"refused":"', $mark, '"'))
