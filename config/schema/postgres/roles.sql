-- Roles with the least that each process needs. To be run once, by an administrator or the owner of the
-- tables; again after each later `rcu db migrate`. It sets no passwords:
--
--     psql -f config/schema/postgres/roles.sql postgres://OWNER@HOST/NAME
--     psql -c "ALTER ROLE rcu_login PASSWORD '…'" …
--
-- role            who                     may
-- rcu_login       conn servers            look accounts up, note logins and epochs; change no account
-- rcu_telemetry   logic servers           insert telemetry, begin and end sessions; read no record
-- rcu_read        analysts, dashboards    read everything but the keys
--
-- The owner alone makes tables and changes accounts: `rcu db` and `rcu device` run as he. Whoever else is
-- known to this server may not even come in: `GRANT rcu_read TO somebody` lets him.
--
-- Tests take each right of the two servers away, column by column, and await that something fails.

\set ON_ERROR_STOP on

-- Servers that run notice nothing of it.
BEGIN;

DO $$
DECLARE
    role text;
    place text := current_schema(); -- whichever the tables are in, by the search_path of the database
    owner text := (SELECT tableowner FROM pg_tables WHERE schemaname = place AND tablename = 'accounts');
    routine regprocedure;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', place);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', place, owner);
    -- Also the functions of the schema: those of a later version that this file does not name yet are nobody's.
    FOR routine IN SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(place)::regnamespace AND proname LIKE 'rcu\_%' LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
    END LOOP;

    FOREACH role IN ARRAY ARRAY['rcu_login', 'rcu_telemetry', 'rcu_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- somebody made it just now, for another database of this server
            END;
        END IF;
        -- What an earlier version of this file gave a server is gone where this one does not give it. Analysts
        -- may have got more from somebody else.
        IF role <> 'rcu_read' THEN
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), role);
            EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', place, role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, role);
    END LOOP;
    -- A batch with records that may be there already goes through temporary tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO rcu_telemetry', current_database());
END
$$;

-- Every process looks at the version of the schema when it starts.
GRANT SELECT (version, success) ON _sqlx_migrations TO rcu_login, rcu_telemetry, rcu_read;

-- ---- rcu_login ----

GRANT SELECT (id, name, sealed_key, enabled, version) ON accounts TO rcu_login;
GRANT UPDATE (firmware, last_login_at, last_source, last_node) ON accounts TO rcu_login;
GRANT SELECT (id, account_id, name, change, version, changed_at) ON account_changes TO rcu_login;
GRANT SELECT (node_number, mark), INSERT (node_number, mark), UPDATE (mark) ON epoch_marks TO rcu_login;

-- ---- rcu_telemetry ----

GRANT INSERT ON telemetry_gps, telemetry_fuel, telemetry_gyroscope, telemetry_diagnosis, telemetry_custom,
    dead_letter TO rcu_telemetry;
GRANT INSERT (account_id, epoch, node, source, attached_at) ON sessions TO rcu_telemetry;
GRANT SELECT (account_id, epoch, node, attached_at, ended_at) ON sessions TO rcu_telemetry;
GRANT UPDATE (ended_at, reason) ON sessions TO rcu_telemetry;
GRANT EXECUTE ON FUNCTION rcu_ensure_partition(date), rcu_contradicting(anyarray, text[]) TO rcu_telemetry;

-- ---- rcu_read ----

GRANT SELECT ON telemetry_gps, telemetry_fuel, telemetry_gyroscope, telemetry_diagnosis, telemetry_custom,
    dead_letter, sessions, account_changes, epoch_marks TO rcu_read;
GRANT SELECT (id, name, enabled, version, created_at, firmware, last_login_at, last_source, last_node)
    ON accounts TO rcu_read;

-- What people look at first. A view reads with the rights of the owner: `devices` has all of `accounts` but the key.
GRANT SELECT ON devices, latest_position, gps, fuel, gyroscope, diagnosis, custom TO rcu_read;

COMMIT;
