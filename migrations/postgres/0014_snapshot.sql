-- Sagas that stay open for long: their events are put together into one, a snapshot, so that days of events can go.

create table snapshot (
    saga    uuid   primary key,
    version bigint not null,
    time_ms bigint not null
);
comment on table snapshot is 'the last snapshot of a saga; written in its shard''s transaction, and only of those that stay open for long';
comment on column snapshot.version is 'that of the row of `event` that holds it: rows with a lower one are not needed any more';

-- Sagas that were parked without a timer before there were snapshots get one, so that their owners look at them. Looking
-- is all that it does: the timer is set again. Spread over a day.
update saga set due = (extract(epoch from now()) * 1000 + random() * 86400000)::bigint where due is null and phase = 'parked';
