-- Sagas: their rows, their events, their numbers, their definitions.

create table definition (
    -- Immutable: the same version with another text is refused. A running saga keeps the version it started with.
    name      text    not null,
    version   integer not null,
    sha256    text    not null,
    -- Everything the definition was loaded from, as JSON: its text, schemas, samples, catalogue.
    source    text    not null,
    loaded_ms integer not null,
    primary key (name, version)
) strict;

create table definition_active (
    name         text primary key,
    version      integer not null,
    -- What a rollback returns to.
    previous     integer,
    activated_ms integer not null
) strict;

create table saga_number (
    -- A number is claimed once, for ever; it outlives its saga's row.
    definition text not null,
    number     text not null,
    saga       blob not null,
    -- SHA-256 of key and input: the same number with another body is refused.
    body_hash  text not null,
    primary key (definition, number)
) strict, without rowid;

create table saga (
    -- The row is a cache of the saga's events.
    id      blob    primary key,
    shard   integer not null,
    -- Count of events; every write carries the version it read.
    version integer not null,
    phase   text    not null,
    -- When the next timer is due, milliseconds since 1970; null when none is.
    due     integer,
    -- Control and data, JSON.
    state   text    not null
) strict, without rowid;

create index saga_due on saga (shard, due) where due is not null;

create table event (
    -- The events that one batch gave one saga are one row.
    shard   integer not null,
    seq     integer not null,
    saga    blob    not null,
    -- The saga's version before these events, and how many they are.
    version integer not null,
    events  integer not null,
    time_ms integer not null,
    -- JSON array.
    body    text    not null,
    primary key (shard, seq)
) strict, without rowid;

create index event_saga on event (saga, version);

create table orphan (
    -- Inputs whose saga is unknown: kept, tried again, alerted; nothing that may be money is dropped.
    id       integer primary key,
    shard    integer not null,
    saga     blob    not null,
    time_ms  integer not null,
    tried_ms integer not null,
    tries    integer not null default 0,
    -- JSON of the envelope.
    body     text    not null
) strict;

create index orphan_shard on orphan (shard, tried_ms);

create table discrepancy (
    -- Two books differ; a person looks at it.
    id      integer primary key,
    saga    blob,
    kind    text    not null,
    -- The effect concerned, if one is.
    effect_id text,
    detail  text    not null,
    state   text    not null default 'open' check (state in ('open', 'explained', 'fixed')),
    time_ms integer not null
) strict;
