-- Builds on many machines: whose turn it is, and what became of earlier attempts.
--
-- run_turn     one row for each run that is not over: written with the run, removed when it
--              ends. A run that an older server queued has none; that counts as nobody's
-- turn_served  when somebody's run was last taken from the queue, one row for each registry
--              and caller; `turn::prune` removes those of a day ago

CREATE TABLE run_turn (
    registry BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    -- For whom it is, as the queue tells people apart; empty for nobody in particular.
    caller   TEXT   NOT NULL,
    -- How often a worker took it.
    attempts BIGINT NOT NULL,
    -- Whether its image is being stored: whoever took it again could not know how far that went.
    storing  BIGINT NOT NULL,
    -- What the worker is called that has it, or had it last.
    worker   TEXT,
    -- Until when its log belongs to the process that tells its place in the queue.
    telling  BIGINT,
    -- The place that was told last.
    told     BIGINT,
    PRIMARY KEY (registry, seq)
);

CREATE TABLE turn_served (
    registry BIGINT NOT NULL,
    caller   TEXT   NOT NULL,
    served   BIGINT NOT NULL,
    PRIMARY KEY (registry, caller)
);
CREATE INDEX turn_served_served ON turn_served (served);
