-- Closing a discrepancy: who did it, and why.

alter table discrepancy
    add column closed_ms    bigint,
    add column closed_by    text,
    add column close_reason text;
comment on column discrepancy.closed_ms is 'when a person closed it; null while it is open';
comment on column discrepancy.closed_by is 'who';
comment on column discrepancy.close_reason is 'why';

create index discrepancy_open on discrepancy (time_ms) where state = 'open';
