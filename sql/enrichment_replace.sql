-- Takes out what a source said of items before, ahead of the rows in enrichment_rows.
delete from enrichments
using enrichment_rows
where
    enrichments.item_type = enrichment_rows.item_type
    and enrichments.item_id = enrichment_rows.item_id
    and enrichments.source = enrichment_rows.source
