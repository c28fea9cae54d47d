-- Grain: a file that was loaded whole; one loaded again keeps the counts of its first time.
insert into files (fingerprint, path, table_name, read, inserted, duplicate, rejected, finished_at)
select $fingerprint, $path, $table, $read, $inserted, $duplicate, $rejected, now()::timestamp
where not exists (select 1 from files where fingerprint = $fingerprint)
