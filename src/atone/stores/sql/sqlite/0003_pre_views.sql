-- Choreographed sagas as a view has heard of them: the events, and a narrow row that was made of them.

CREATE TABLE views (
    key BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    definition INTEGER NOT NULL,
    status TEXT NOT NULL,
    wake_at REAL,
    created_at REAL NOT NULL,
    -- of how many events the row was made; a row that was made of fewer never replaces it
    folded INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, name, saga_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX views_due ON views (name, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX views_in_need ON views (key) WHERE status = 'needs_attention';

CREATE VIEW view_summaries AS
    SELECT v.key, v.tenant, v.name, v.saga_id, d.version, d.plan_hash, v.status, NULL AS owner, v.wake_at, v.created_at
      FROM views AS v JOIN definitions AS d ON d.id = v.definition;

CREATE TABLE view_events (
    saga BLOB NOT NULL,
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    at REAL NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (saga, position),
    UNIQUE (saga, id)
) STRICT, WITHOUT ROWID;
