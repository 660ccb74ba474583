-- Messages that wait to be published, written with the turns that they tell of, and those that no broker takes.

-- A row lives for moments, so the table is small, changes wholly all the time, and is swept often.
CREATE TABLE atone.outbox (
    -- Never used again: a relay that comes late with what it has published must not have a newer message forgotten.
    ref bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    headers text COLLATE "C" NOT NULL,
    at float8 NOT NULL,
    claimed_by text COLLATE "C",
    claimed_until float8 NOT NULL DEFAULT 0
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.05
);

-- The head of a key is its oldest message; what comes behind a head is found here too.
CREATE INDEX outbox_of_key ON atone.outbox (key, ref);

CREATE TABLE atone.set_aside (
    ref bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    headers text COLLATE "C" NOT NULL,
    at float8 NOT NULL,
    why text NOT NULL,
    set_aside_at float8 NOT NULL
);
