-- Messages of the embedded broker: one row for each message and each group that had declared its topic.

-- Who gives messages of a group to a member holds its row: of one key nobody takes the second before the first.
CREATE TABLE atone.broker_groups (
    name text COLLATE "C" PRIMARY KEY
);

CREATE TABLE atone.broker_topics (
    group_name text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    PRIMARY KEY (group_name, topic)
);

CREATE INDEX broker_topics_heard ON atone.broker_topics (topic);

CREATE TABLE atone.broker_messages (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    body bytea NOT NULL,
    headers text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    -- 0: may be taken. A time: not before it; somebody has it until then if there is a holder. NULL: parked.
    due_at float8 DEFAULT 0,
    holder text COLLATE "C",
    parked_at float8,
    reason text
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_threshold = 10000
);

CREATE INDEX broker_messages_ready ON atone.broker_messages (group_name, seq) WHERE due_at = 0;
CREATE INDEX broker_messages_keys ON atone.broker_messages (group_name, key, seq) WHERE due_at = 0;
CREATE INDEX broker_messages_waiting ON atone.broker_messages (group_name, due_at) WHERE due_at > 0;
CREATE INDEX broker_messages_held ON atone.broker_messages (group_name, key) WHERE holder IS NOT NULL;
CREATE INDEX broker_messages_parked ON atone.broker_messages (group_name, parked_at) WHERE parked_at IS NOT NULL;
