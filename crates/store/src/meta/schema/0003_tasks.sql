-- Builds: their runs, what they are made from, and what they remember.
--
-- run_seq     the last run number given out, one row for each registry
-- run         one row for each run. Unfinished runs are the queue; finished ones are kept
--             until `run::prune` takes those older than the retention time
-- run_image   the images a run stored, for "which run made this digest"
-- run_event   one row for each change of a run's status, written with the change; `seq` is
--             of the same sequence as `event`, so that the two read as one log
-- object      every named object the blob store holds for us (packed contexts, run logs)
--             and when it may go; written before the object itself, deleted after it
-- object_block  blocks of a context whose upload has not been put together yet
-- step_cache  records of build steps, by cache key; evicted oldest use first
-- cache_rule  which upstream repositories appear under which names of a registry
--
-- `registry` is registry.id. Ids are never used twice, so a row of a deleted registry can
-- be met by nobody; `run::prune` collects such rows in time.

CREATE TABLE run_seq (
    registry BIGINT NOT NULL PRIMARY KEY,
    last     BIGINT NOT NULL
);

CREATE TABLE run (
    registry     BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    id           TEXT   NOT NULL,
    status       TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    started      BIGINT,
    finished     BIGINT,
    updated      BIGINT NOT NULL,
    os           TEXT   NOT NULL,
    architecture TEXT   NOT NULL,
    variant      TEXT,
    cpu          BIGINT NOT NULL,
    timeout_secs BIGINT NOT NULL,
    archived     BIGINT NOT NULL,
    task         TEXT,
    -- What to build, as JSON of `tasks::BuildSpec`; without its secrets once finished.
    spec         TEXT   NOT NULL,
    context      TEXT,
    error        TEXT,
    cancel       BIGINT NOT NULL,
    lease_owner  TEXT,
    lease_until  BIGINT,
    PRIMARY KEY (registry, seq),
    UNIQUE (registry, id)
);
CREATE INDEX run_unfinished ON run (status, created) WHERE finished IS NULL;
CREATE INDEX run_context ON run (context);
CREATE INDEX run_finished ON run (finished);

CREATE TABLE run_image (
    registry BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    n        BIGINT NOT NULL,
    repo     TEXT   NOT NULL,
    tag      TEXT,
    digest   BLOB   NOT NULL,
    PRIMARY KEY (registry, seq, n)
);
CREATE INDEX run_image_digest ON run_image (registry, digest);

CREATE TABLE run_event (
    seq      BIGINT NOT NULL PRIMARY KEY,
    registry BIGINT NOT NULL,
    run      TEXT   NOT NULL,
    status   TEXT   NOT NULL,
    at       BIGINT NOT NULL
);
CREATE INDEX run_event_run ON run_event (registry, run);

CREATE TABLE object (
    key      TEXT   NOT NULL PRIMARY KEY,
    kind     TEXT   NOT NULL,
    registry BIGINT NOT NULL,
    -- Bytes, once the object is whole.
    size     BIGINT,
    created  BIGINT NOT NULL,
    -- When it may be deleted; NULL while something still needs it.
    expires  BIGINT
);
CREATE INDEX object_expires ON object (expires);

CREATE TABLE object_block (
    object TEXT   NOT NULL,
    block  TEXT   NOT NULL,
    size   BIGINT NOT NULL,
    PRIMARY KEY (object, block)
);

CREATE TABLE step_cache (
    key       BLOB   NOT NULL PRIMARY KEY,
    record    BLOB   NOT NULL,
    -- Bytes of the content the record keeps alive.
    bytes     BIGINT NOT NULL,
    last_used BIGINT NOT NULL
);
CREATE INDEX step_cache_last_used ON step_cache (last_used);

CREATE TABLE cache_rule (
    registry   BIGINT NOT NULL,
    -- The name in lower case: ARM names are case-insensitive.
    key        TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    source     TEXT   NOT NULL,
    target     TEXT   NOT NULL,
    credential TEXT,
    created    BIGINT NOT NULL,
    PRIMARY KEY (registry, key)
);
