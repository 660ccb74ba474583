-- What workers and readers may do; follows the migrations, and may be run again.
-- No worker may forget a saga, a journal row or a worker: what belongs to an unknown worker would be nobody's for ever.

GRANT USAGE ON SCHEMA atone TO atone_worker, atone_reader;

GRANT SELECT ON ALL TABLES IN SCHEMA atone TO atone_worker;
GRANT INSERT, UPDATE ON atone.workers, atone.definitions, atone.sagas TO atone_worker;
GRANT INSERT ON atone.journal, atone.requests, atone.dead_letters TO atone_worker;
GRANT INSERT, UPDATE, DELETE ON atone.early_events, atone.outbox TO atone_worker;
-- A person posts again what was set aside, or drops it.
GRANT INSERT, DELETE ON atone.set_aside TO atone_worker;

-- What a view has heard of sagas that are over may be purged: nobody acts on it.
GRANT INSERT, UPDATE, DELETE ON atone.views TO atone_worker;
GRANT INSERT, DELETE ON atone.view_events TO atone_worker;

GRANT SELECT ON atone.summaries, atone.journal_sizes, atone.definitions, atone.identity, atone.migrations,
    atone.view_summaries, atone.view_events TO atone_reader;

-- A message of the embedded broker is forgotten when its group has settled it.
GRANT INSERT ON atone.broker_topics TO atone_worker;
GRANT INSERT, UPDATE ON atone.broker_groups TO atone_worker;
GRANT INSERT, UPDATE, DELETE ON atone.broker_messages TO atone_worker;
