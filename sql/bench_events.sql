-- A log of impressions and clicks to measure loading with, written as jsonl to $path.
-- grain: one row an event; columns: event_id, ts, user_id, item_type, item_id, action, position, surface
copy (
    with numbered as (
        select range as n, hash(range) as h
        from range($rows)
    ),

    final as (
        select
            'e' || n as event_id,
            strftime(timestamp '2026-01-01' + to_seconds(n * 3), '%Y-%m-%dT%H:%M:%SZ') as ts,
            'u' || h % 20000 as user_id,
            'ad' as item_type,
            'a' || (h // 20000) % 5000 as item_id,
            if(h % 20 = 0, 'click', 'impression') as action,
            (h // 7) % 10 as position,
            'home' as surface
        from numbered
    )

    select * from final
) to $path (format json)
