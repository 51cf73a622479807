"""The journal's tables, and the states in them.

A series: ``collecting`` until no instance came for the quiet time, ``ready``, ``running`` in a child process,
``sending`` its results, ``committed`` when each destination has them, ``failed`` with a reason, or ``left out``, being
of a kind that is not graded, such as a localizer. A delivery is one
result for one destination: ``pending``, ``sent`` (stored there), ``requested`` (storage commitment asked for),
``committed``, ``skipped`` (the destination cannot take this kind, and the site said so), or ``dead`` (given up until
somebody retries).
"""

from __future__ import annotations

SCHEMA_VERSION = 1

COLLECTING, READY, RUNNING, SENDING = "collecting", "ready", "running", "sending"
COMMITTED, FAILED, LEFT_OUT = "committed", "failed", "left out"
SERIES_STATES = (COLLECTING, READY, RUNNING, SENDING, COMMITTED, FAILED, LEFT_OUT)

PENDING, SENT, REQUESTED, CONFIRMED, SKIPPED, DEAD = "pending", "sent", "requested", "committed", "skipped", "dead"
DELIVERY_STATES = (PENDING, SENT, REQUESTED, CONFIRMED, SKIPPED, DEAD)

TABLES = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    series_uid TEXT NOT NULL UNIQUE,
    study_uid TEXT NOT NULL,
    source TEXT NOT NULL,                        -- AE title or the name of the DICOMweb source it came from
    state TEXT NOT NULL CHECK (
        state IN ('collecting', 'ready', 'running', 'sending', 'committed', 'failed', 'left out')
    ),
    revision INTEGER NOT NULL DEFAULT 1,         -- rises when a series is reopened; results belong to one revision
    priority INTEGER NOT NULL DEFAULT 0,         -- 0 routine, 1 high, 2 stat
    n_instances INTEGER NOT NULL DEFAULT 0,
    n_repeats INTEGER NOT NULL DEFAULT 0,        -- instances that came again and were acknowledged without new work
    n_changed INTEGER NOT NULL DEFAULT 0,        -- of these, with another content under the same UID; the first is kept
    attempts INTEGER NOT NULL DEFAULT 0,         -- of the pipeline, for this revision
    next_try REAL NOT NULL DEFAULT 0,            -- of the pipeline; seconds since 1970, as are all times here
    reason TEXT,                                 -- why it failed
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,                       -- when its last new instance was stored
    changed_at REAL NOT NULL                     -- when its state last changed
);
CREATE INDEX IF NOT EXISTS series_by_state ON series (state, priority DESC, last_at);
CREATE TABLE IF NOT EXISTS instances (
    sop_uid TEXT PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    sop_class TEXT NOT NULL,
    file TEXT NOT NULL,                          -- below the spool
    n_bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,                        -- SHA-256 of the data set as it came
    received_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS instances_by_series ON instances (series_id);
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    kind TEXT NOT NULL,                          -- the name of its file: sr, sr-enhanced, seg, capture-001, ...
    sop_class TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    file TEXT NOT NULL,                          -- below the folder of results
    made_at REAL NOT NULL,
    UNIQUE (series_id, revision, sop_uid)
);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY,
    result_id INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'requested', 'committed', 'skipped', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0,            -- pending, sent: not before; requested: unanswered from then on
    error TEXT,
    transaction_uid TEXT,                        -- of the last request for storage commitment
    changed_at REAL NOT NULL,
    UNIQUE (result_id, destination)
);
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (destination, state, next_try);
CREATE INDEX IF NOT EXISTS deliveries_by_transaction ON deliveries (transaction_uid);
"""

# Each request for storage commitment that a delivery was part of; an answer may come after the next one was made. Apart
# from `TABLES`, since journals of version 1 were made without it: it is made where it is absent.
TRANSACTIONS = (
    "CREATE TABLE IF NOT EXISTS transactions ("
    "delivery_id INTEGER NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE, "
    "transaction_uid TEXT NOT NULL, "
    "is_open INTEGER NOT NULL DEFAULT 1, "  # 0 once the delivery was confirmed, given up, or is to be sent again
    "PRIMARY KEY (delivery_id, transaction_uid))",
    "CREATE INDEX IF NOT EXISTS transactions_by_uid ON transactions (transaction_uid)",
)
