-- Three roles for this database; may be run again. Run it before the first migration, as somebody who may make roles.
-- The owner makes and changes tables; workers read and write them; readers see no payload.
-- Then give each login its role: GRANT atone_worker TO the_login.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'atone_owner') THEN CREATE ROLE atone_owner NOLOGIN; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'atone_worker') THEN CREATE ROLE atone_worker NOLOGIN; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'atone_reader') THEN CREATE ROLE atone_reader NOLOGIN; END IF;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO atone_owner', current_database());
END
$$;
