-- Adds the slots sold in ranked requests to the log.
-- grain: a slot of a request; reads: auctions_rows, registered by the writer
insert into auctions (request_id, ts, user_id, item_id, slot, bid, score, price, cost)
select request_id, ts, user_id, item_id, slot, bid, score, price, cost
from auctions_rows
