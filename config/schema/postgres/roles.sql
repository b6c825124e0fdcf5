-- Roles with the least that each process needs. To be run once, by the owner of the tables, after
-- `rcu db migrate`; again after each later one. It sets no passwords:
--
--     psql -f config/schema/postgres/roles.sql postgres://OWNER@HOST/NAME
--     psql -c "ALTER ROLE rcu_login PASSWORD '…'" …
--
-- role            who                     may
-- rcu_login       conn servers            look accounts up, note logins and epochs; change no account
-- rcu_telemetry   logic servers           insert telemetry, begin and end sessions; read no record
-- rcu_read        analysts, dashboards    read everything but the keys
--
-- The owner alone makes tables and changes accounts: `rcu db` and `rcu device` run as he.

\set ON_ERROR_STOP on

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['rcu_login', 'rcu_telemetry', 'rcu_read'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- somebody made it just now, for another database of this server
            END;
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- A batch with records that are there already goes through temporary tables.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO rcu_telemetry', current_database());
    EXECUTE format('REVOKE CREATE ON SCHEMA public FROM PUBLIC');
END
$$;

-- Every process looks at the version of the schema when it starts.
GRANT SELECT ON _sqlx_migrations TO rcu_login, rcu_telemetry, rcu_read;

GRANT SELECT ON accounts, account_changes TO rcu_login;
GRANT UPDATE (firmware, last_login_at, last_source, last_node) ON accounts TO rcu_login;
GRANT SELECT, INSERT, UPDATE ON epoch_marks TO rcu_login;

GRANT INSERT ON telemetry_gps, telemetry_fuel, telemetry_gyroscope, telemetry_diagnosis, telemetry_custom,
    dead_letter TO rcu_telemetry;
GRANT INSERT, SELECT ON sessions TO rcu_telemetry;
GRANT UPDATE (ended_at, reason) ON sessions TO rcu_telemetry;
GRANT EXECUTE ON FUNCTION rcu_ensure_partition(date) TO rcu_telemetry;

GRANT SELECT ON telemetry_gps, telemetry_fuel, telemetry_gyroscope, telemetry_diagnosis, telemetry_custom,
    dead_letter, sessions, account_changes, epoch_marks TO rcu_read;
GRANT SELECT (id, name, enabled, version, created_at, firmware, last_login_at, last_source, last_node)
    ON accounts TO rcu_read;
