-- Scheduled jobs: who may run one, and what each run found and did.

create table job_lease (
    job      text   collate "C" primary key,
    owner    text   not null,
    until_ms bigint not null
) with (fillfactor = 50);
comment on table job_lease is 'a job runs in one place at a time: whoever moved its row last, until its time is over';

create table job_run (
    id         bigint generated always as identity primary key,
    job        text   collate "C" not null,
    owner      text   not null,
    due_ms     bigint not null,
    started_ms bigint not null,
    ended_ms   bigint,
    outcome    text   check (outcome in ('done', 'failed', 'abandoned')),
    dry_run    bigint not null check (dry_run in (0, 1)),
    found      bigint not null default 0,
    changed    bigint not null default 0,
    details    text   not null default '[]',
    error      text,
    asked_by   text,
    reason     text
);
comment on column job_run.due_ms is 'when the clock meant it to run';
comment on column job_run.ended_ms is 'null while it runs; a run whose process died is closed as abandoned by the next one';
comment on column job_run.dry_run is '1: it finds, and changes nothing';
comment on column job_run.details is 'JSON array: what differed, as far as a report can hold it';
comment on column job_run.asked_by is 'who ran it by hand; null for the clock';

create index job_run_job on job_run (job, started_ms);
create index job_run_open on job_run (job) where ended_ms is null;
