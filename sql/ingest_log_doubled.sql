-- Grain: a hash that several keys of what was just appended share: nearly always one key that came twice. Hashes,
-- because grouping eight bytes takes half the time of grouping ids.
create or replace temp table doubled as
select hash({key}) as hashed
from {destination}
where rowid >= $first
group by hashed
having count(*) > 1
