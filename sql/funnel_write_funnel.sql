-- Adds the candidates of ranked requests to the log.
-- grain: a candidate of a request at a stage; reads: funnel_rows, registered by the writer
insert into funnel (request_id, ts, user_id, surface, item_id, stage, source, score, rank, kept)
select request_id, ts, user_id, surface, item_id, stage, source, score, rank, kept
from funnel_rows
