-- Role definitions made here, and conditions of assignments.
--
-- role_definition  custom roles; `permissions` and `scopes` are JSON, as ARM has them. One
--                  that is assigned cannot go. The built-in roles are in the program
-- role_assignment  further what it is for, when it holds, and who made and changed it
--
-- `key` is the lower-case form of the name, of which there is one in all.

CREATE TABLE role_definition (
    id          TEXT   NOT NULL PRIMARY KEY,
    key         TEXT   NOT NULL UNIQUE,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    permissions TEXT   NOT NULL,
    scopes      TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    created_by  TEXT,
    updated     BIGINT NOT NULL,
    updated_by  TEXT
);

ALTER TABLE role_assignment ADD COLUMN description TEXT;
ALTER TABLE role_assignment ADD COLUMN condition_text TEXT;
ALTER TABLE role_assignment ADD COLUMN created_by TEXT;
ALTER TABLE role_assignment ADD COLUMN updated BIGINT;
ALTER TABLE role_assignment ADD COLUMN updated_by TEXT;
CREATE INDEX role_assignment_role ON role_assignment (role);
