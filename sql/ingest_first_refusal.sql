-- Grain: the refused row that stands first in the file. Columns: line, reason.
select
    located.line,
    coalesce(located.problem, stage.reason) as reason
from stage
inner join located on located.row = stage.{row}
where stage.reason is not null
order by 1
limit 1
