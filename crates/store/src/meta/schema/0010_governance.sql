-- What watches over the control plane: locks, the log of what was done, operations that
-- outlive their request, security plans, and the identities that registries were given.
--
-- management_lock    at a subscription, a group or a resource; for all below it too. Nothing
--                    that is locked can go, so no row is left without its scope
-- activity           who did what to which resource, in the order it was written; old rows
--                    and those beyond a number are removed by a timer
-- operation          what goes on after its request was answered; a row without an end is
--                    taken by a worker, again when its lease ran out. Ended rows are removed
--                    by a timer
-- security_plan      what `az security pricing` set, by plan
-- registry_identity  ARM's `identity` of a registry; dies with it
--
-- `key` columns are the lower-case forms that ARM's ids and names are compared in.

CREATE TABLE management_lock (
    scope_key TEXT   NOT NULL,
    key       TEXT   NOT NULL,
    scope     TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    -- `CanNotDelete` or `ReadOnly`
    level     TEXT   NOT NULL,
    notes     TEXT,
    created   BIGINT NOT NULL,
    updated   BIGINT NOT NULL,
    PRIMARY KEY (scope_key, key)
);

CREATE TABLE activity (
    seq          BIGINT NOT NULL PRIMARY KEY,
    at           BIGINT NOT NULL,
    correlation  TEXT   NOT NULL,
    -- Object id of who asked.
    caller       TEXT   NOT NULL,
    -- `Microsoft.ContainerRegistry/registries/write`
    operation    TEXT   NOT NULL,
    -- `Started`, `Accepted`, `Succeeded`, `Failed`
    status       TEXT   NOT NULL,
    resource     TEXT   NOT NULL,
    -- JSON object: the rest of the event, for showing it.
    detail       TEXT   NOT NULL
);
CREATE INDEX activity_at ON activity (at, seq);

CREATE TABLE operation (
    id           TEXT   NOT NULL PRIMARY KEY,
    -- `group.delete`, `registry.delete`
    kind         TEXT   NOT NULL,
    scope_key    TEXT   NOT NULL,
    scope        TEXT   NOT NULL,
    -- Object id of who asked.
    principal    TEXT   NOT NULL,
    -- JSON object: what the log is told when it ends.
    detail       TEXT   NOT NULL,
    -- `InProgress`, `Succeeded`, `Failed`
    status       TEXT   NOT NULL,
    code         TEXT,
    message      TEXT,
    created      BIGINT NOT NULL,
    ended        BIGINT,
    leased_until BIGINT NOT NULL
);
CREATE INDEX operation_scope ON operation (scope_key);
CREATE INDEX operation_status ON operation (status, created);

CREATE TABLE security_plan (
    key        TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    -- `Free` or `Standard`
    tier       TEXT   NOT NULL,
    sub_plan   TEXT,
    -- JSON list
    extensions TEXT   NOT NULL,
    -- When the tier last became Standard.
    enabled    BIGINT,
    updated    BIGINT NOT NULL
);

CREATE TABLE registry_identity (
    registry  BIGINT NOT NULL,
    -- The ARM id of a user-assigned identity, in lower case; empty for the registry's own.
    key       TEXT   NOT NULL,
    -- That id in the case it was given.
    identity  TEXT   NOT NULL,
    -- Object id of the principal, and its application id.
    principal TEXT   NOT NULL,
    client    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    PRIMARY KEY (registry, key)
);
