-- Grain: a record that gave a refused row. Columns: row (the number of the record in the file, from 0).
select distinct row
from refused
order by 1
