-- Grain: a refused record. Columns: row (its number in the file, from 0), line (of the file, from 1), text, problem
-- (why the line is no record, where that is known).
create or replace temp table located (row bigint, line bigint, text varchar, problem varchar)
