-- What could not go to the broker waits here, numbered per topic and partition, until the shard's owner has read it.

alter table shard
    add column position_spilled_start    bigint not null default 0,
    add column position_spilled_progress bigint not null default 0;
comment on column shard.position_spilled_start is 'next number to read in what was spilled of `start`';
comment on column shard.position_spilled_progress is 'next number to read in what was spilled of `progress`, or of `commands`';

create table spill_end (
    topic  text   collate "C" not null check (topic in ('start', 'progress', 'commands')),
    shard  bigint not null,
    next_n bigint not null,
    primary key (topic, shard)
) with (fillfactor = 10);
comment on table spill_end is 'who appends locks its row until the commit: numbers are committed in their order, without gaps';

create table spill (
    topic   text   collate "C" not null,
    shard   bigint not null,
    n       bigint not null,
    time_ms bigint not null default (extract(epoch from clock_timestamp()) * 1000)::bigint,
    body    text   not null,
    primary key (topic, shard, n)
    -- Emptied after each outage: vacuumed by what changes, not by how much there is.
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table spill is 'messages that were accepted while the broker did not answer; deleted in pages once their shard''s position is behind them';
comment on column spill.time_ms is 'the database''s clock: how long the oldest one waits';
comment on column spill.body is 'the envelope, JSON';
