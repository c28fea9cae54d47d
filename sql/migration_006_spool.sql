-- Grain: a folder of rows put aside whose rows are in the warehouse, until it is taken away.
create table spool_taken (name varchar primary key);
