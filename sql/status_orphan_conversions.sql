-- Grain: one row. Columns: conversions (of an advertiser that the catalogue does not know).
with
final as (
    select count(*) as conversions
    from conversions
    anti join advertisers using (advertiser_id)
)
select * from final
