-- Sagas: their rows, their events, their numbers, their definitions.

create table definition (
    name      text   collate "C" not null,
    version   bigint not null,
    sha256    text   not null,
    source    text   not null,
    loaded_ms bigint not null,
    primary key (name, version)
);
comment on table definition is 'immutable: the same version with another text is refused; a running saga keeps its version';
comment on column definition.source is 'everything the definition was loaded from, as JSON: text, schemas, samples, catalogue';

create table definition_active (
    name         text   collate "C" primary key,
    version      bigint not null,
    previous     bigint,
    activated_ms bigint not null
);
comment on column definition_active.previous is 'what a rollback returns to';

create table saga_number (
    definition text collate "C" not null,
    number     text collate "C" not null,
    saga       uuid not null,
    body_hash  text not null,
    primary key (definition, number)
);
comment on table saga_number is 'a number is claimed once, for ever; it outlives its saga''s row';
comment on column saga_number.body_hash is 'SHA-256 of key and input: the same number with another body is refused';

create table saga (
    id      uuid   primary key,
    shard   bigint not null,
    version bigint not null,
    phase   text   not null,
    due     bigint,
    state   text   not null
    -- Room for the next version of a row in its own page: as long as `due` stays, no index is touched.
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
comment on table saga is 'a cache of the saga''s events; indexed are id, and shard with due, and nothing else';
comment on column saga.version is 'count of events; every write carries the version it read';
comment on column saga.due is 'when the next timer is due, milliseconds since 1970; null when none is';
comment on column saga.state is 'control and data, JSON';

create index saga_due on saga (shard, due) where due is not null;

create table event (
    shard   bigint not null,
    seq     bigint not null,
    saga    uuid   not null,
    version bigint not null,
    events  bigint not null,
    time_ms bigint not null,
    body    text   not null
) partition by range (time_ms);
comment on table event is 'the events that one batch gave one saga are one row; (shard, seq) is unique because the fence is';
comment on column event.version is 'the saga''s version before these events';
comment on column event.time_ms is 'the owner''s clock; decides in which day''s partition the row lies';
comment on column event.body is 'JSON array';

-- Not unique: that would have to contain the partition''s key and would show nothing.
create index event_seq on event (shard, seq);
create index event_saga on event (saga, version);

create table orphan (
    id       bigint generated always as identity primary key,
    shard    bigint not null,
    saga     uuid   not null,
    time_ms  bigint not null,
    tried_ms bigint not null,
    tries    bigint not null default 0,
    body     text   not null
);
comment on table orphan is 'inputs whose saga is unknown: kept, tried again, alerted; nothing that may be money is dropped';

create index orphan_shard on orphan (shard, tried_ms);

create table discrepancy (
    id        bigint generated always as identity primary key,
    saga      uuid,
    kind      text   not null,
    effect_id text,
    detail    text   not null,
    state     text   not null default 'open' check (state in ('open', 'explained', 'fixed')),
    time_ms   bigint not null
);
comment on table discrepancy is 'two books differ; a person looks at it';
