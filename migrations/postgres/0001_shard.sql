-- Shards: who owns a partition, how far it has got, and what it has sent.
--
-- Texts that are compared or sorted by the program carry collation "C": they order by bytes, as in the embedded store,
-- whatever the database was made with.

create table system (
    name  text collate "C" primary key,
    value text not null
);
comment on table system is 'settings that are fixed when the store is made';

create table shard (
    side              text   collate "C" not null check (side in ('orchestrator', 'participants')),
    shard             bigint not null,
    epoch             bigint not null default 0,
    position_start    bigint not null default 0,
    position_progress bigint not null default 0,
    next_seq          bigint not null default 1,
    next_outbox_seq   bigint not null default 1,
    published_seq     bigint not null default 1,
    primary key (side, shard)
    -- Updated by every batch; with room in its page and no index on what moves, each update is in place.
) with (fillfactor = 10);
comment on table shard is 'who owns a partition, and how far it has got';
comment on column shard.epoch is 'rises with every assignment; a writer with an older one hits no row';
comment on column shard.position_start is 'next offset to read in `start`';
comment on column shard.position_progress is 'next offset to read in `progress`, or in `commands`';
comment on column shard.next_seq is 'next number of the shard''s events, given in memory by the single owner: no gaps';
comment on column shard.next_outbox_seq is 'next number of its outgoing messages, given in the same way';
comment on column shard.published_seq is 'every outgoing message below was acknowledged by the broker';

create table outbox (
    side      text   collate "C" not null,
    shard     bigint not null,
    seq       bigint not null,
    topic     text   not null,
    partition bigint not null,
    messages  bigint not null check (messages > 0),
    time_ms   bigint not null default (extract(epoch from clock_timestamp()) * 1000)::bigint,
    body      text   not null,
    primary key (side, shard, seq, time_ms)
) partition by range (time_ms);
comment on table outbox is 'committed messages, one row for what a batch sends to one partition; days are dropped whole, below the published mark';
comment on column outbox.seq is 'number of the row''s first message; the others follow';
comment on column outbox.time_ms is 'the database''s clock: decides only in which day''s partition the row lies';
comment on column outbox.body is 'JSON array of envelopes';

create table dead_letter (
    id            bigint generated always as identity primary key,
    topic         text   not null,
    partition     bigint not null,
    read_offset   bigint not null,
    bytes         text   not null,
    reason        text   not null,
    time_ms       bigint not null,
    replayed_ms   bigint,
    replayed_by   text,
    replay_reason text,
    unique (topic, partition, read_offset)
);
comment on table dead_letter is 'records that nobody could handle';
comment on column dead_letter.replayed_ms is 'when an operator sent it again; null while it waits';
comment on column dead_letter.replayed_by is 'who sent it again';

-- A batch is one statement in which every write is counted; a wrong count takes the whole batch back.
create function endstate_must(part bigint, hit bigint, expected bigint) returns bigint
    language plpgsql volatile as $$
begin
    if hit <> expected then
        raise exception using errcode = 'ES011', message = format('%s %s %s', part, hit, expected);
    end if;
    return hit;
end
$$;
comment on function endstate_must is 'the number of rows hit, or an error when another number was expected';

-- A day of a table, made where it is missing. Attached instead of created in place: writers of other days do not wait.
create function endstate_partition(parent text, day bigint) returns boolean
    language plpgsql volatile as $$
declare
    child text := format('%s_%s', parent, to_char(to_timestamp(day * 86400) at time zone 'UTC', 'YYYYMMDD'));
begin
    if to_regclass(child) is not null then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtext('endstate_partition'));
    -- Read anew: a name looked up before the lock may be remembered as missing.
    if exists (select from pg_class c join pg_class p on p.relnamespace = c.relnamespace
               where p.oid = parent::regclass and c.relname = child) then
        return false;
    end if;
    execute format('create table %I (like %I including all)', child, parent);
    execute format('alter table %I attach partition %I for values from (%s) to (%s)',
                   parent, child, day * 86400000, (day + 1) * 86400000);
    return true;
end
$$;
comment on function endstate_partition is 'makes the partition of a day, counted from 1970; true when it was missing';
