-- Repository tokens and scope maps.
--
-- scope_map           a named list of actions on repositories of one registry; made, changed
--                     and deleted by the control plane. Those that every registry has are in
--                     the program and have no row
-- repo_token          somebody who may sign in to one registry; what it may do is its scope
--                     map's to say, and without one it may do nothing
-- repo_token_password the hashes of its passwords, at most two. `id` is never used twice: an
--                     access token names the password it was got with and ends with it
-- repo_token_change   counts the changes of a registry's rows here, so that servers read
--                     anew only what changed; a row for each registry that ever had one
--
-- `key` columns are the lower-case forms that names are compared in. A registry's rows go with
-- it; what of them is left has a registry number that nothing is found by.

CREATE TABLE scope_map (
    registry    BIGINT NOT NULL,
    key         TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    -- One action on a line, in the order given.
    actions     TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (registry, key)
);

CREATE TABLE repo_token (
    registry  BIGINT NOT NULL,
    key       TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    -- Key of a scope map of the registry, or of one that every registry has.
    scope_map TEXT,
    enabled   BIGINT NOT NULL,
    created   BIGINT NOT NULL,
    PRIMARY KEY (registry, key)
);
CREATE INDEX repo_token_scope_map ON repo_token (registry, scope_map);

CREATE TABLE repo_token_password (
    registry BIGINT NOT NULL,
    token    TEXT   NOT NULL,
    -- 1 or 2.
    which    BIGINT NOT NULL,
    id       BIGINT NOT NULL UNIQUE,
    -- Version byte, salt, hash: see `auth::password`.
    hash     BLOB   NOT NULL,
    created  BIGINT NOT NULL,
    expires  BIGINT,
    PRIMARY KEY (registry, token, which),
    FOREIGN KEY (registry, token) REFERENCES repo_token (registry, key) ON DELETE CASCADE
);

CREATE TABLE repo_token_change (
    registry BIGINT NOT NULL PRIMARY KEY,
    version  BIGINT NOT NULL
);
