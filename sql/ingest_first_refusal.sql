-- Grain: the refused row that stands first in the file. Columns: line, reason.
select
    located.line,
    coalesce(located.problem, refused.reason) as reason
from refused
inner join located on located.row = refused.row
order by 1
limit 1
