-- A position may fit a log that is another one: a topic that was made anew, or lost its end, and has grown beyond it. Beside
-- each position stands by which record it was reached, and who begins there looks whether that record is still in its place.

alter table shard
    add column witness_start    bigint not null default 0,
    add column witness_progress bigint not null default 0;
comment on column shard.witness_start is 'hash of the record by which position_start was reached, times 2^32, and the lower half of that position: of another position it says nothing; 0: nobody knows';
comment on column shard.witness_progress is 'the same for position_progress';
