-- How far topics of other teams were read.

create table listening (
    topic       text   not null,
    partition   bigint not null,
    next_offset bigint not null,
    primary key (topic, partition)
);
comment on table listening is 'positions in topics of other teams, kept once the broker has what was made of their events';
comment on column listening.topic is 'its name on the broker';
comment on column listening.next_offset is 'the next record to read; never moves back';
