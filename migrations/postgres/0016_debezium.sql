-- For Debezium's outbox event router: what goes to the topic of domain events, one row for each, written in the same
-- transaction when `store.debezium` asks for it. Debezium reads the log and never the table, so that a day of it may be
-- dropped at any time.

create table debezium_outbox (
    id            text         not null,
    aggregatetype text         not null,
    aggregateid   text         not null,
    type          text         not null,
    payload       text         not null,
    "timestamp"   timestamp(3) not null,
    lane          text         not null,
    time_ms       bigint       not null default (extract(epoch from clock_timestamp()) * 1000)::bigint
    -- No index and no key: nobody looks anything up in it, and nothing is ever changed or deleted.
) partition by range (time_ms);
comment on table debezium_outbox is 'status changes for Debezium, see docs/debezium.md; empty unless store.debezium is set; days are dropped whole';
comment on column debezium_outbox.id is 'the event''s id: that of the record in the topic of domain events; the same for a repeat';
comment on column debezium_outbox.aggregatetype is 'the definition; the router makes a topic of it';
comment on column debezium_outbox.aggregateid is 'the saga''s number; the router makes the record''s key of it';
comment on column debezium_outbox.type is 'the CloudEvents type';
comment on column debezium_outbox.payload is 'JSON, as text: jsonb would refuse some texts that JSON can hold, and with them the batch';
comment on column debezium_outbox."timestamp" is 'when it happened, UTC; the router takes no timestamp with time zone and no number';
comment on column debezium_outbox.lane is 'live, test or load';
comment on column debezium_outbox.time_ms is 'the database''s clock: decides only in which day''s partition the row lies';
