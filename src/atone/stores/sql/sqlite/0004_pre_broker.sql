-- Messages of the embedded broker: one row for each message and each group that had declared its topic.

CREATE TABLE broker_topics (
    group_name TEXT NOT NULL,
    topic TEXT NOT NULL,
    PRIMARY KEY (group_name, topic)
) STRICT, WITHOUT ROWID;

CREATE INDEX broker_topics_heard ON broker_topics (topic);

CREATE TABLE broker_messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name TEXT NOT NULL,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key BLOB NOT NULL,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- 0: may be taken. A time: not before it; somebody has it until then if there is a holder. NULL: parked.
    due_at REAL DEFAULT 0,
    holder TEXT,
    parked_at REAL,
    reason TEXT
) STRICT;

CREATE INDEX broker_messages_ready ON broker_messages (group_name, seq) WHERE due_at = 0;
CREATE INDEX broker_messages_keys ON broker_messages (group_name, key, seq) WHERE due_at = 0;
CREATE INDEX broker_messages_waiting ON broker_messages (group_name, due_at) WHERE due_at > 0;
CREATE INDEX broker_messages_held ON broker_messages (group_name, key) WHERE holder IS NOT NULL;
CREATE INDEX broker_messages_parked ON broker_messages (group_name, parked_at) WHERE parked_at IS NOT NULL;
