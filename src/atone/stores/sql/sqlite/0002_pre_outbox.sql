-- Messages that wait to be published, written with the turns that they tell of, and those that no broker takes.

CREATE TABLE outbox (
    -- Never used again: a relay that comes late with what it has published must not have a newer message forgotten.
    ref INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,
    at REAL NOT NULL,
    claimed_by TEXT,
    claimed_until REAL NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX outbox_of_key ON outbox (key, ref);

CREATE TABLE set_aside (
    ref INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,
    at REAL NOT NULL,
    why TEXT NOT NULL,
    set_aside_at REAL NOT NULL
) STRICT;
