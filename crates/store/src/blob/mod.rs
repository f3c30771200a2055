//! Blobs: immutable content by digest, uploads in the making, and named objects (build
//! contexts and run logs).
//!
//! The life of a blob: bytes stream into an upload ([`Uploads`]) or a writer ([`Ingest`]),
//! hashed on the way; `finish` checks the digest, makes the bytes durable and gives them
//! their name in one atomic step. From then on they never change. [`Sweep`] removes them
//! when no row refers to them any more; which repository may read them is a row in the
//! database and not known here.
