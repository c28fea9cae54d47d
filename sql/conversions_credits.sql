-- Grain: a conversion and an example that has a part in it. A conversion is credited to clicks on the
-- advertiser's ads at most $click_window microseconds before it; without any, to views at most $view_window
-- before it (0: to none); what comes after a conversion has no part in it. via: 1 click, 2 view. credit: the
-- parts of one conversion sum to 1, by $attribution: last_touch, linear (equal parts), or position (first .4,
-- last .4, the others .2 together; of two .5 each). value: the credited part of the money.
with
clicks as (
    select counted.conversion, touch.example, touch.ts, 1 as via
    from conversion_counted as counted
    join conversion_clicks as touch
        on touch.user_no = counted.user_no
        and touch.advertiser_no = counted.advertiser_no
        and touch.ts <= counted.ts
        and touch.ts >= counted.ts - $click_window
),
unclicked as (
    select * from conversion_counted
    where $view_window > 0 and conversion not in (select conversion from clicks)
),
views as (
    select unclicked.conversion, touch.example, touch.ts, 2 as via
    from unclicked
    join feature_examples as touch
        on touch.user_no = unclicked.user_no
        and touch.advertiser_no = unclicked.advertiser_no
        and touch.ts <= unclicked.ts
        and touch.ts >= unclicked.ts - $view_window
),
touches as (
    select * from clicks
    union all
    select * from views
),
placed as (
    select
        *,
        row_number() over (partition by conversion order by ts, example) as place,
        count(*) over (partition by conversion) as touches
    from touches
),
shared as (
    select
        conversion,
        example,
        via,
        case
            when $attribution = 'last_touch' then if(place = touches, 1.0, 0.0)::double
            when $attribution = 'linear' or touches <= 2 then 1.0::double / touches
            when place in (1, touches) then 0.4::double
            else 0.2::double / (touches - 2)
        end as credit
    from placed
),
final as (
    select
        shared.example,
        counted.kind,
        shared.via,
        shared.credit,
        shared.credit * counted.value as value,
        counted.ts,
        counted.reported,
        shared.conversion
    from shared
    join conversion_counted as counted using (conversion)
    where shared.credit > 0
    order by shared.example, counted.kind, counted.reported, shared.conversion
)
select * from final
