-- Choreographed sagas as a view has heard of them: the events, and a narrow row that was made of them.

CREATE TABLE atone.views (
    key bytea PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    saga_id text NOT NULL,
    definition integer NOT NULL,
    status text NOT NULL,
    wake_at float8,
    created_at float8 NOT NULL,
    -- of how many events the row was made; a row that was made of fewer never replaces it
    folded integer NOT NULL DEFAULT 0,
    UNIQUE (tenant, name, saga_id)
);

CREATE INDEX views_due ON atone.views (name, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX views_in_need ON atone.views (key) WHERE status = 'needs_attention';

CREATE VIEW atone.view_summaries AS
    SELECT v.key, v.tenant, v.name, v.saga_id, d.version, d.plan_hash, v.status, CAST(NULL AS text) AS owner,
           v.wake_at, v.created_at
      FROM atone.views AS v JOIN atone.definitions AS d ON d.id = v.definition;

CREATE TABLE atone.view_events (
    saga bytea NOT NULL,
    position integer NOT NULL,
    id text NOT NULL,
    at float8 NOT NULL,
    entry bytea NOT NULL,
    PRIMARY KEY (saga, position),
    UNIQUE (saga, id)
);
