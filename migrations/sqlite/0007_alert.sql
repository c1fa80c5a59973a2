-- Alerts: what people should know, in the transaction of what it tells of, until they were told.

create table alert (
    -- Derived from what it is about: said again, it is the same row, and a receiver recognises a repeat.
    id         text    primary key,
    kind       text    not null,
    -- The saga concerned, with its definition and number; null and empty when none is.
    saga       blob,
    definition text    not null,
    number     text    not null,
    step       text,
    text       text    not null,
    time_ms    integer not null,
    -- Trying to tell: how often, when next, and whether it is kept in the file meanwhile.
    tries      integer not null default 0,
    next_ms    integer not null default 0,
    kept       integer not null default 0 check (kept in (0, 1)),
    -- When somebody was told, and by what way; null while it waits.
    told_ms    integer,
    told_by    text    check ((told_by is null) = (told_ms is null))
) strict, without rowid;

create index alert_waiting on alert (next_ms, time_ms) where told_ms is null;
create index alert_told on alert (told_ms) where told_ms is not null;
