-- Sagas, their journals, the workers that own them, and what waits for a saga that does not exist yet.
-- Times are epoch seconds by the database's clock. Text compares byte by byte, whatever the database's language is.

-- Which store this is: a start within somebody's own transaction asks whether it went to the right database.
CREATE TABLE atone.identity (
    id text COLLATE "C" NOT NULL DEFAULT CAST(gen_random_uuid() AS text),
    is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one)
);
INSERT INTO atone.identity DEFAULT VALUES;

CREATE TABLE atone.workers (
    id text COLLATE "C" PRIMARY KEY,
    lease_until float8 NOT NULL,
    dead boolean NOT NULL DEFAULT false,
    -- false once a dead worker has no unfinished saga left, so that a claim need not look at it for ever
    holds boolean NOT NULL DEFAULT true
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX workers_to_watch ON atone.workers (dead) WHERE holds;

CREATE TABLE atone.definitions (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    plan_hash text COLLATE "C" NOT NULL,
    plan text,
    UNIQUE (name, version, plan_hash)
);

-- Narrow and hot: a row changes only when others must see a difference. The room that is left on each page
-- takes the next state of its rows, so that a change stays on the page.
CREATE TABLE atone.sagas (
    key bytea PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    definition integer NOT NULL,
    status text COLLATE "C" NOT NULL,
    owner text COLLATE "C",
    wake_at float8,
    -- true while the newest journal row is a request, which the owner may not have seen
    asked boolean NOT NULL DEFAULT false,
    created_at float8 NOT NULL,
    CONSTRAINT sagas_named UNIQUE (tenant, name, saga_id)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.05
);

-- Every claim reads this one: what is mine, what the dead left, what is due.
CREATE INDEX sagas_unfinished ON atone.sagas (owner, definition, wake_at)
    WHERE status NOT IN ('completed', 'compensated', 'failed');
CREATE INDEX sagas_asked ON atone.sagas (owner) WHERE asked;
CREATE INDEX sagas_in_need ON atone.sagas (key) WHERE status = 'needs_attention';
-- Most sagas complete; who asks for the others must not read through those. A saga that completes pays nothing for it.
CREATE INDEX sagas_undone ON atone.sagas (key) WHERE status IN ('compensated', 'failed');

-- The primary key is the compare-and-swap: one row for each turn, and two turns never share a version.
CREATE TABLE atone.journal (
    saga bytea NOT NULL,
    version integer NOT NULL,
    at float8 NOT NULL,
    commit_id bytea NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (saga, version)
);

CREATE TABLE atone.requests (
    saga bytea NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (saga, id)
);

CREATE TABLE atone.early_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    commit_id bytea NOT NULL,
    entries bytea NOT NULL,
    expires_at float8 NOT NULL,
    UNIQUE (tenant, name, saga_id, request_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX early_events_expiry ON atone.early_events (expires_at);

CREATE TABLE atone.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    entries bytea NOT NULL,
    given_up_at float8 NOT NULL
);

-- The two views that a reader may look at: no payload is in them.
CREATE VIEW atone.summaries AS
    SELECT s.key, s.tenant, s.name, s.saga_id, d.version, d.plan_hash, s.status, s.owner, s.wake_at, s.created_at
      FROM atone.sagas AS s JOIN atone.definitions AS d ON d.id = s.definition;

CREATE VIEW atone.journal_sizes AS
    SELECT saga, version, at, octet_length(entries) AS bytes FROM atone.journal;
