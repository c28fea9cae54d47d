-- Grain: a slot sold; cost: what it is expected to cost its campaign, the price of a click times its probability.
-- Null in rows of before: of those nobody knows.
alter table auctions add column cost double;
