-- How far topics of other teams were read. Empty on the embedded bus, which nobody else can reach.

create table listening (
    -- Its name on the broker.
    topic       text    not null,
    partition   integer not null,
    -- The next record to read; never moves back.
    next_offset integer not null,
    primary key (topic, partition)
) strict;
