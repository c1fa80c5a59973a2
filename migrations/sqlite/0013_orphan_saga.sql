-- A saga that starts is given what came for it before: its shard looks by saga.

create index orphan_saga on orphan (saga);
