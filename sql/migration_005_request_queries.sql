-- Grain: a request that began with a query, and the first query of it.
create view request_queries as
select request_id, min(ts) as ts, arg_min(query, (ts, query)) as query
from events
where item_type = 'query' and query is not null and request_id is not null
group by request_id;
