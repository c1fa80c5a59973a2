-- Closing a discrepancy: who did it, and why.

alter table discrepancy add column closed_ms integer;
alter table discrepancy add column closed_by text;
alter table discrepancy add column close_reason text;

-- Open ones only: they are counted with every scrape.
create index discrepancy_open on discrepancy (time_ms) where state = 'open';
