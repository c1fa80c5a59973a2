-- Long texts are compressed with lz4, where the server was built with it: `pglz`, the default, takes several times as long
-- for about the same size, and most batches write some text that is long enough.

do $$
declare
    days regclass;
begin
    alter table saga alter column state set compression lz4;
    alter table saga_view alter column view set compression lz4;
    -- A day's table is made like its parent; those that are there are told one by one.
    for days in
        select 'outbox'::regclass union select 'event'::regclass
        union select inhrelid::regclass from pg_inherits where inhparent in ('outbox'::regclass, 'event'::regclass)
    loop
        execute format('alter table %s alter column body set compression lz4', days);
    end loop;
exception when feature_not_supported then
    raise notice 'this server has no lz4: texts are compressed with its default';
end
$$;
