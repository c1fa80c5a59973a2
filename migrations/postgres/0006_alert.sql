-- Alerts: what people should know, in the transaction of what it tells of, until they were told.

create table alert (
    id         text   collate "C" primary key,
    kind       text   not null,
    saga       uuid,
    definition text   not null,
    number     text   not null,
    step       text,
    text       text   not null,
    time_ms    bigint not null,
    tries      bigint not null default 0,
    next_ms    bigint not null default 0,
    kept       bigint not null default 0 check (kept in (0, 1)),
    told_ms    bigint,
    told_by    text   check ((told_by is null) = (told_ms is null))
);
comment on column alert.id is 'derived from what it is about: said again, it is the same row, and a receiver recognises a repeat';
comment on column alert.saga is 'the saga concerned, with its definition and number; null and empty when none is';
comment on column alert.tries is 'how often it was tried to tell somebody';
comment on column alert.next_ms is 'when it is tried next';
comment on column alert.kept is '1: it is kept in the file meanwhile';
comment on column alert.told_ms is 'when somebody was told; null while it waits';
comment on column alert.told_by is 'by what way';

create index alert_waiting on alert (next_ms, time_ms) where told_ms is null;
create index alert_told on alert (told_ms) where told_ms is not null;
