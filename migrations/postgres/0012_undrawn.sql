-- Sagas that the projector could not draw: the view lacks them, or has them as they were.

create table undrawn (
    saga     uuid   primary key,
    shard    bigint not null,
    since_ms bigint not null,
    tried_ms bigint not null,
    reason   text   not null
);
comment on table undrawn is 'written by the projector, and empty unless something is wrong';
comment on column undrawn.since_ms is 'when it was first missed';
comment on column undrawn.tried_ms is 'when it was last tried; the longest ago is tried next';
comment on column undrawn.reason is 'for people: an unknown definition, a state that cannot be read, data that the store refuses';

create index undrawn_tried on undrawn (tried_ms, saga);
