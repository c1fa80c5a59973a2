-- The job that tries orphans again takes those first that were never tried, then those whose turn is longest ago.

create index orphan_turn on orphan ((tries > 0), tried_ms, id);
