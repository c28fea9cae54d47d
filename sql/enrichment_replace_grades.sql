-- Takes out what a source said of pairs before, ahead of the rows in relevance_rows.
delete from relevance
using relevance_rows
where
    relevance.query = relevance_rows.query
    and relevance.item_type = relevance_rows.item_type
    and relevance.item_id = relevance_rows.item_id
    and relevance.source = relevance_rows.source
