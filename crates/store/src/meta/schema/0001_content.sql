-- Repositories, manifests, tags, blobs, uploads, events and the review queue.
--
-- Who writes: the functions of meta::{repo, manifest, tag, blob, upload, event, gc}, called
-- by service::{repos, manifests, tags, blobs, uploads, gc}.
-- Digests are BLOBs: one byte for the algorithm (1 sha256, 2 sha512), then the hash.
-- Times are microseconds since 1970. `attrs` is a bit set: 1 delete, 2 write, 4 list,
-- 8 read; a set bit allows. `hlc` and `region` stamp rows that replicas will exchange.
--
-- What makes a row garbage:
--   repo       no manifest, no linked blob and no upload is left in it
--   manifest   only a request deletes it
--   repo_blob  no manifest of the repository needs the blob and the grace time is over
--   blob       no repo_blob names it and no lease holds it
--   upload     nothing was appended for the idle time
--   gc_queue   its review is done
--   lease      its time is over

CREATE TABLE repo (
    id       BIGINT NOT NULL PRIMARY KEY,
    registry BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    attrs    BIGINT NOT NULL,
    created  BIGINT NOT NULL,
    updated  BIGINT NOT NULL,
    hlc      BIGINT NOT NULL,
    region   TEXT   NOT NULL,
    UNIQUE (registry, name)
);

CREATE TABLE manifest (
    repo              BIGINT NOT NULL REFERENCES repo (id),
    digest            BLOB   NOT NULL,
    media_type        TEXT   NOT NULL,
    -- Bytes of the manifest itself.
    size              BIGINT NOT NULL,
    -- Bytes of everything it needs: configuration and layers, or the children's sum.
    image_size        BIGINT NOT NULL,
    config_media_type TEXT,
    architecture      TEXT,
    os                TEXT,
    subject           BLOB,
    artifact_type     TEXT,
    -- A JSON object, as the manifest has it; NULL when it has none.
    annotations       TEXT,
    attrs             BIGINT NOT NULL,
    created           BIGINT NOT NULL,
    updated           BIGINT NOT NULL,
    hlc               BIGINT NOT NULL,
    region            TEXT   NOT NULL,
    -- Last, so that reading the other columns does not walk over it.
    bytes             BLOB   NOT NULL,
    PRIMARY KEY (repo, digest)
);
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_updated ON manifest (repo, updated, digest);

-- What a manifest needs. kind 1: a blob, 2: a manifest (child of an index).
CREATE TABLE manifest_ref (
    repo   BIGINT NOT NULL,
    parent BLOB   NOT NULL,
    kind   BIGINT NOT NULL,
    child  BLOB   NOT NULL,
    PRIMARY KEY (repo, parent, kind, child),
    FOREIGN KEY (repo, parent) REFERENCES manifest (repo, digest)
);
CREATE INDEX manifest_ref_child ON manifest_ref (repo, child, kind);

CREATE TABLE tag (
    repo    BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    digest  BLOB   NOT NULL,
    attrs   BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    hlc     BIGINT NOT NULL,
    region  TEXT   NOT NULL,
    PRIMARY KEY (repo, name),
    FOREIGN KEY (repo, digest) REFERENCES manifest (repo, digest)
);
CREATE INDEX tag_digest ON tag (repo, digest);
CREATE INDEX tag_updated ON tag (repo, updated, name);

CREATE TABLE blob (
    digest  BLOB   NOT NULL PRIMARY KEY,
    size    BIGINT NOT NULL,
    created BIGINT NOT NULL
);

-- Which repository may read a blob.
CREATE TABLE repo_blob (
    repo   BIGINT NOT NULL REFERENCES repo (id),
    digest BLOB   NOT NULL REFERENCES blob (digest),
    linked BIGINT NOT NULL,
    PRIMARY KEY (repo, digest)
);
CREATE INDEX repo_blob_digest ON repo_blob (digest);

-- Uploads under way. The bytes are in the blob store under the same id.
CREATE TABLE upload (
    id      TEXT   NOT NULL PRIMARY KEY,
    repo    BIGINT NOT NULL REFERENCES repo (id),
    -- Who began it; nobody else may touch it.
    owner   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL
);
CREATE INDEX upload_repo ON upload (repo);
CREATE INDEX upload_updated ON upload (updated);

-- What happened, in order. Deletions live on here: the row that is gone cannot tell.
CREATE TABLE event (
    seq        BIGINT NOT NULL PRIMARY KEY,
    registry   BIGINT NOT NULL,
    repo       TEXT   NOT NULL,
    -- manifest.pushed, manifest.deleted, tag.set, tag.deleted, repo.deleted, attributes.changed
    kind       TEXT   NOT NULL,
    tag        TEXT,
    digest     BLOB,
    media_type TEXT,
    size       BIGINT,
    actor      TEXT   NOT NULL,
    request    TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    hlc        BIGINT NOT NULL,
    region     TEXT   NOT NULL
);

-- What the garbage collector has to look at, and when. kind 1: a repository's link to a
-- blob, 2: a blob that lost a link (repo 0), 3: a file whose blob row is gone (repo 0).
CREATE TABLE gc_queue (
    kind   BIGINT NOT NULL,
    repo   BIGINT NOT NULL,
    digest BLOB   NOT NULL,
    due    BIGINT NOT NULL,
    PRIMARY KEY (kind, repo, digest)
);
CREATE INDEX gc_queue_due ON gc_queue (due);

-- Blobs that something holds without a repository: a build under way, its cache.
CREATE TABLE lease (
    holder TEXT   NOT NULL,
    digest BLOB   NOT NULL,
    until  BIGINT NOT NULL,
    PRIMARY KEY (holder, digest)
);
CREATE INDEX lease_digest ON lease (digest);
