-- Sagas that the projector could not draw: the view lacks them, or has them as they were.

create table undrawn (
    saga     blob    primary key,
    shard    integer not null,
    -- When it was first missed.
    since_ms integer not null,
    -- When it was last tried; the longest ago is tried next.
    tried_ms integer not null,
    -- For people: an unknown definition, a state that cannot be read, data that the store refuses.
    reason   text    not null
) strict, without rowid;

create index undrawn_tried on undrawn (tried_ms, saga);
