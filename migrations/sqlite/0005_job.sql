-- Scheduled jobs: who may run one, and what each run found and did.

create table job_lease (
    -- A job runs in one place at a time: whoever moved this row last, until its time is over.
    job      text    primary key,
    -- The process, by an id of its own.
    owner    text    not null,
    until_ms integer not null
) strict, without rowid;

create table job_run (
    id         integer primary key,
    job        text    not null,
    owner      text    not null,
    -- When the clock meant it to run, and when it did.
    due_ms     integer not null,
    started_ms integer not null,
    -- Null while it runs; a run whose process died is closed as abandoned by the next one.
    ended_ms   integer,
    outcome    text    check (outcome in ('done', 'failed', 'abandoned')),
    -- A dry run finds, and changes nothing.
    dry_run    integer not null check (dry_run in (0, 1)),
    found      integer not null default 0,
    changed    integer not null default 0,
    -- JSON array: what differed, as far as a report can hold it.
    details    text    not null default '[]',
    error      text
) strict;

create index job_run_job on job_run (job, started_ms);
create index job_run_open on job_run (job) where ended_ms is null;
