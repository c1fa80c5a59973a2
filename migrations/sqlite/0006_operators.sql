-- Operators' actions that are no input of a saga: who did it, and why. (On sagas, they land as events.)

-- Who sent a dead letter again.
alter table dead_letter add column replayed_by text;
alter table dead_letter add column replay_reason text;

-- Who ran a job by hand; null for the clock.
alter table job_run add column asked_by text;
alter table job_run add column reason text;
