-- Grain: what is inferred of users' interests. All of it is derived: it can be dropped and is made again by
-- `adstool interests --refresh`. kind: category, topic, ...; level: depth of the value in its kind, from 0, and the
-- shares of one thing over the values of one level sum to 1. source: on_site, query, offsite_online,
-- offsite_offline; action: the event's action or the conversion's kind.

-- One row a user, value, source and action: amount is the sum of 2^((ts - reference) / half life) times the
-- thing's share in the value, so that a later build only adds to it.
create table interest_sums (
    user_id varchar, kind varchar, level integer, value varchar, source varchar, action varchar, amount double,
    count bigint, last_ts timestamp
);

-- One row a user whose sums are stored: a hash of what they were made of.
create table interest_users (user_id varchar, content uhugeint);

-- One row a user and a value that the user's own doing speaks of. weight: the user's share in the value's level.
-- lift: weight over the population's share. certainty: how much of the weight rests on the user's own doing.
create table interests (
    user_id varchar, kind varchar, level integer, value varchar, weight double, lift double, certainty double,
    last_ts timestamp,
    evidence struct(source varchar, action varchar, count bigint, last_ts timestamp, contribution double)[]
);

-- One row a value and a profile (users of one gender, age and country): what such users want by themselves.
create table interest_priors (
    profile bigint, kind varchar, level integer, value varchar, share double, popular double
);
create table interest_profiles (user_id varchar, profile bigint);

-- One row: what the tables above were made of.
create table interest_build (
    definition varchar, settings varchar, data varchar, reference bigint, as_of timestamp, offsite boolean,
    made_at timestamp
);

-- One row a logged query and topic: zero-shot intents under a CLIP model and a taxonomy.
create table query_intents (model varchar, query varchar, topic varchar, score double);
