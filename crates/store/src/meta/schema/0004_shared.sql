-- Several servers on one database: who is there, and what each has in hand.
--
-- Who writes: the functions of meta::peer, called by service::{peers, push, gc, uploads}.
-- A server that has its database to itself leaves these tables empty.
--
-- server        one row for each server that is running; it renews its row, and one whose
--               time is over is taken for dead: the row goes with everything it had in hand
-- push          content that a server is about to put in place, or has put in place without
--               having committed its rows; nobody deletes that content meanwhile
-- upload_writer which request is adding to an upload, for one at a time
-- duty          work that one server does for all: who does it, and until when

CREATE TABLE server (
    id    TEXT   NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);

CREATE TABLE push (
    server TEXT   NOT NULL REFERENCES server (id),
    -- Counted by the server.
    n      BIGINT NOT NULL,
    digest BLOB   NOT NULL,
    -- The upload that the content comes from, when it has no row of its own.
    upload TEXT,
    PRIMARY KEY (server, n, digest)
);
CREATE INDEX push_digest ON push (digest);
CREATE INDEX push_upload ON push (upload) WHERE upload IS NOT NULL;

CREATE TABLE upload_writer (
    upload TEXT   NOT NULL PRIMARY KEY,
    server TEXT   NOT NULL REFERENCES server (id),
    -- Counted by the server.
    n      BIGINT NOT NULL
);
CREATE INDEX upload_writer_server ON upload_writer (server);

CREATE TABLE duty (
    name   TEXT   NOT NULL PRIMARY KEY,
    server TEXT   NOT NULL,
    until  BIGINT NOT NULL
);
