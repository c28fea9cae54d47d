-- Grain: an advertiser of an iPinYou log. Columns: advertiser_id, vertical (as the data set describes it),
-- attributes, problem, _row (its first).
with
records as (
    {records}
),
verticals(advertiser_id, vertical) as (
    values
        ('1458', 'Chinese vertical e-commerce'), ('2259', 'milk powder'), ('2261', 'telecom'),
        ('2821', 'footwear'), ('2997', 'mobile e-commerce app install'), ('3358', 'software'),
        ('3386', 'international e-commerce'), ('3427', 'oil'), ('3476', 'tire')
),
found as (
    select advertiser as advertiser_id, min(_row) as _row from records group by advertiser
),
final as (
    select
        found.advertiser_id,
        verticals.vertical,
        null::json as attributes,
        null::varchar as problem,
        found._row
    from found
    left join verticals using (advertiser_id)
)
select * from final
