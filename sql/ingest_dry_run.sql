-- Grain: for one table, an empty temporary twin for what a dry run would insert, and a view of both together
-- in which the twin's rows hide the table's.
create temp table dry_{table} as
from {table}
limit 0;

create temp view known_{table} as
select * from {table}
where {key} not in (select {key} from dry_{table})
union all
select * from dry_{table};
