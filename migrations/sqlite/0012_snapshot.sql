-- Where a saga's events were put together into one, a snapshot. The embedded store keeps all events of open sagas, so this
-- stays empty; the shards' statements are the same over every store.

create table snapshot (
    saga    blob    primary key,
    -- That of the row of `event` that holds it: rows with a lower one are not needed any more.
    version integer not null,
    time_ms integer not null
) strict, without rowid;
