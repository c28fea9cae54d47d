-- Grain: an example that was clicked, with the first click that belongs to it (see features_labels.sql, of which
-- conversion_labels is the result for clicks); ts in microseconds UTC.
with
final as (
    select
        feature_examples.example,
        feature_examples.user_no,
        feature_examples.advertiser_no,
        conversion_labels.first_ts as ts
    from conversion_labels
    join feature_examples using (example)
)
select * from final
