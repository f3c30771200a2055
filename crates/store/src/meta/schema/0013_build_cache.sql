-- Step records belong to a registry: what one registry's builds did is found by its own
-- builds only, and goes with it. Records from before are of nobody, are not found, and are
-- evicted with time.

ALTER TABLE step_cache ADD COLUMN registry BIGINT NOT NULL DEFAULT 0;
CREATE INDEX step_cache_registry ON step_cache (registry);
