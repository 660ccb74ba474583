-- Sagas, their journals, the workers that own them, and what waits for a saga that does not exist yet.

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    lease_until REAL NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0,
    -- 0 once a dead worker has no unfinished saga left, so that a claim need not look at it for ever
    holds INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

CREATE INDEX workers_to_watch ON workers (dead) WHERE holds = 1;

CREATE TABLE definitions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    plan_hash TEXT NOT NULL,
    plan TEXT,
    UNIQUE (name, version, plan_hash)
) STRICT;

-- Narrow and hot: a row changes only when others must see a difference.
CREATE TABLE sagas (
    key BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    definition INTEGER NOT NULL,
    status TEXT NOT NULL,
    owner TEXT,
    wake_at REAL,
    -- 1 while the newest journal row is a request, which the owner may not have seen
    asked INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    UNIQUE (tenant, name, saga_id)
) STRICT, WITHOUT ROWID;

-- Every claim reads this one: what is mine, what the dead left, what is due.
CREATE INDEX sagas_unfinished ON sagas (owner, definition, wake_at)
    WHERE status NOT IN ('completed', 'compensated', 'failed');
CREATE INDEX sagas_asked ON sagas (owner) WHERE asked = 1;
CREATE INDEX sagas_in_need ON sagas (key) WHERE status = 'needs_attention';

CREATE VIEW unfinished AS SELECT * FROM sagas WHERE status NOT IN ('completed', 'compensated', 'failed');

-- The primary key is the compare-and-swap: one row for each turn, and two turns never share a version.
CREATE TABLE journal (
    saga BLOB NOT NULL,
    version INTEGER NOT NULL,
    at REAL NOT NULL,
    commit_id BLOB NOT NULL,
    entries BLOB NOT NULL,
    PRIMARY KEY (saga, version)
) STRICT, WITHOUT ROWID;

-- A version can't be skipped either, whatever a writer believes.
CREATE TRIGGER journal_has_no_gap BEFORE INSERT ON journal
    WHEN new.version > 1 AND NOT EXISTS (SELECT 1 FROM journal WHERE saga = new.saga AND version = new.version - 1)
BEGIN
    SELECT raise(ABORT, 'a journal row is missing');
END;

CREATE TABLE requests (
    saga BLOB NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (saga, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE early_events (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    commit_id BLOB NOT NULL,
    entries BLOB NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (tenant, name, saga_id, request_id)
) STRICT;

CREATE INDEX early_events_expiry ON early_events (expires_at);

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    entries BLOB NOT NULL,
    given_up_at REAL NOT NULL
) STRICT;

CREATE VIEW summaries AS
    SELECT s.key, s.tenant, s.name, s.saga_id, d.version, d.plan_hash, s.status, s.owner, s.wake_at, s.created_at
      FROM sagas AS s JOIN definitions AS d ON d.id = s.definition;
