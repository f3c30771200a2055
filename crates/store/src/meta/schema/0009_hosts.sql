-- Host names of registries, and what each one uses.
--
-- Who writes: meta::usage, called by meta::{blob, repo} whenever a repository's link to a
-- blob comes or goes, and meta::host, called by service::hosts.
--
-- What makes a row garbage:
--   blob_use       no repository of the registry may read the blob
--   storage_use    its repository is gone, or its registry
--   registry_host  only a request deletes it, or the deletion of its registry

-- In how many repositories of a registry a blob is; registry 0 counts registries.
-- `holder_sum` is the sum of their numbers: that of the only one, where there is one.
CREATE TABLE blob_use (
    registry   BIGINT NOT NULL,
    digest     BLOB   NOT NULL,
    size       BIGINT NOT NULL,
    holders    BIGINT NOT NULL,
    holder_sum BIGINT NOT NULL,
    PRIMARY KEY (registry, digest)
);

-- Bytes of the distinct blobs of a repository, and of those that no other repository of its
-- registry has. Repo 0: of a registry, and of those that no other registry has.
CREATE TABLE storage_use (
    repo         BIGINT NOT NULL,
    registry     BIGINT NOT NULL,
    bytes        BIGINT NOT NULL,
    unique_bytes BIGINT NOT NULL,
    PRIMARY KEY (repo, registry)
);

INSERT INTO blob_use (registry, digest, size, holders, holder_sum)
    SELECT r.registry, l.digest, MAX(b.size), COUNT(*), CAST(SUM(r.id) AS BIGINT)
    FROM repo_blob l JOIN repo r ON r.id = l.repo JOIN blob b ON b.digest = l.digest
    GROUP BY r.registry, l.digest;

INSERT INTO blob_use (registry, digest, size, holders, holder_sum)
    SELECT 0, digest, MAX(size), COUNT(*), CAST(SUM(registry) AS BIGINT) FROM blob_use GROUP BY digest;

INSERT INTO storage_use (repo, registry, bytes, unique_bytes)
    SELECT r.id, r.registry, CAST(SUM(u.size) AS BIGINT),
           CAST(SUM(CASE WHEN u.holders = 1 THEN u.size ELSE 0 END) AS BIGINT)
    FROM repo_blob l JOIN repo r ON r.id = l.repo
    JOIN blob_use u ON u.registry = r.registry AND u.digest = l.digest
    GROUP BY r.id, r.registry;

INSERT INTO storage_use (repo, registry, bytes, unique_bytes)
    SELECT 0, u.registry, CAST(SUM(u.size) AS BIGINT),
           CAST(SUM(CASE WHEN a.holders = 1 THEN u.size ELSE 0 END) AS BIGINT)
    FROM blob_use u JOIN blob_use a ON a.registry = 0 AND a.digest = u.digest
    WHERE u.registry <> 0
    GROUP BY u.registry;

-- Names of registries besides their login servers, in lower case. `certificate` is a chain
-- (PEM), `sealed_key` its key sealed under the master key; without them the server makes one.
CREATE TABLE registry_host (
    host        TEXT   NOT NULL PRIMARY KEY,
    registry    BIGINT NOT NULL,
    certificate TEXT,
    sealed_key  BLOB,
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL
);
CREATE INDEX registry_host_registry ON registry_host (registry, host);
