-- Shards: who owns a partition, and how far it has got.

create table system (
    -- Settings that are fixed when the store is made.
    name  text primary key,
    value text not null
) strict;

create table shard (
    side              text    not null check (side in ('orchestrator', 'participants')),
    shard             integer not null,
    -- Rises with every assignment; a writer with an older one hits no row.
    epoch             integer not null default 0,
    -- Next offset to read in each topic. Moves in the same transaction as the effects of what was read.
    position_start    integer not null default 0,
    position_progress integer not null default 0,
    -- Next sequence number of the shard's events. Given in memory by the single owner: no gaps.
    next_seq          integer not null default 1,
    primary key (side, shard)
) strict, without rowid;

create table outbox (
    -- The local bus is this table: messages of one batch for one partition are one row.
    topic        text    not null,
    partition    integer not null,
    first_offset integer not null,
    messages     integer not null check (messages > 0),
    -- JSON array of envelopes.
    body         text    not null,
    primary key (topic, partition, first_offset)
) strict, without rowid;

create table outbox_end (
    -- Survives the deletion of rows, so that offsets are never given twice (an emptied table must not start again).
    topic       text    not null,
    partition   integer not null,
    next_offset integer not null,
    primary key (topic, partition)
) strict, without rowid;

create table dead_letter (
    id          integer primary key,
    topic       text    not null,
    partition   integer not null,
    read_offset integer not null,
    bytes       text    not null,
    reason      text    not null,
    time_ms     integer not null,
    -- When an operator sent it again; null while it waits.
    replayed_ms integer,
    unique (topic, partition, read_offset)
) strict;
