-- Grain: the whole warehouse, first version. Seven tables come from outside (users pins advertisers campaigns
-- ads events conversions), the rest are adstool's own. No primary keys: ingestion deduplicates with an
-- anti-join and a window, which costs half of what a constraint does. Times are UTC.

create table users (
    user_id varchar, signup_at timestamp, country varchar, language varchar, age_bucket varchar,
    gender varchar, attributes json
);

create table pins (
    pin_id varchar, title varchar, description varchar, image varchar, board_id varchar, category varchar,
    created_at timestamp, attributes json
);

create table advertisers (advertiser_id varchar, name varchar, vertical varchar, attributes json);

create table campaigns (
    campaign_id varchar, advertiser_id varchar, objective varchar, bid_strategy varchar, bid double,
    target double, daily_budget double, starts_at timestamp, ends_at timestamp, attributes json
);

create table ads (
    ad_id varchar, campaign_id varchar, title varchar, description varchar, image varchar,
    landing_url varchar, price double, category varchar, format varchar, created_at timestamp,
    attributes json
);

create table events (
    event_id varchar, ts timestamp, user_id varchar, item_type varchar, item_id varchar, action varchar,
    request_id varchar, surface varchar, position integer, value double, propensity double, source varchar,
    query varchar, attributes json
);

create table conversions (
    conversion_id varchar, ts timestamp, user_id varchar, advertiser_id varchar, kind varchar,
    reported_at timestamp, value double, quantity double, channel varchar, attributes json
);

-- One row a refused row of a file: line is the physical line (or the row, in parquet), from 1.
create table rejects (
    table_name varchar, file varchar, line bigint, reason varchar, row varchar, rejected_at timestamp
);

-- One row a file that was loaded whole.
create table files (
    fingerprint varchar, path varchar, table_name varchar, read bigint, inserted bigint, duplicate bigint,
    rejected bigint, finished_at timestamp
);

-- One row a finished stage: the latest row of a stage says what its inputs were.
create table runs (
    stage varchar, run_id varchar, fingerprint varchar, metrics json, started_at timestamp,
    finished_at timestamp
);

-- One row a candidate a stage, unexposed ones too.
create table funnel (
    request_id varchar, ts timestamp, user_id varchar, surface varchar, item_id varchar, stage varchar,
    source varchar, score double, rank integer, kept boolean
);

-- One row a slot won.
create table auctions (
    request_id varchar, ts timestamp, user_id varchar, item_id varchar, slot integer, bid double,
    score double, price double
);

-- Grain: an item that can be ranked or shown. An ad whose campaign is unknown keeps nulls.
create view catalog as
with
ad_items as (
    select
        'ad' as item_type,
        ads.ad_id as item_id,
        ads.title,
        ads.description,
        ads.image,
        ads.category,
        ads.price,
        ads.format,
        ads.created_at,
        ads.campaign_id,
        campaigns.advertiser_id,
        advertisers.vertical,
        campaigns.objective,
        campaigns.bid_strategy,
        campaigns.bid,
        campaigns.target,
        campaigns.daily_budget,
        campaigns.starts_at,
        campaigns.ends_at
    from ads
    left join campaigns using (campaign_id)
    left join advertisers using (advertiser_id)
),
pin_items as (
    select
        'pin' as item_type,
        pin_id as item_id,
        title,
        description,
        image,
        category,
        created_at
    from pins
),
final as (
    select * from ad_items
    union all by name
    select * from pin_items
)
select * from final;
