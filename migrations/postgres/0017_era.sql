-- A standby that lacks the last commits may be promoted: numbers are given again, to other content. Each promotion begins a
-- timeline of the server, and with it an era here: the upper half of a shard's epoch. What belongs to an older era, an owner
-- that was away or a place in the status changes, is known by it.

create function endstate_timeline() returns bigint
    language plpgsql stable as $$
begin
    return ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint;
exception when others then
    -- A server that speaks like PostgreSQL and has no such log.
    return 0;
end
$$;
comment on function endstate_timeline is 'the server''s timeline, from 1; 0 when it has none';

alter table shard
    add column timeline bigint not null default 0,
    add column era_outbox_seq bigint not null default 1;
comment on column shard.epoch is 'rises with every assignment, and with an era beyond all of the older ones; a writer with an older one hits no row';
comment on column shard.timeline is 'the server''s when it was assigned; on another one its owner writes nothing';
comment on column shard.era_outbox_seq is 'where its outgoing messages stood when its era began: what had a number from there on before is gone';
