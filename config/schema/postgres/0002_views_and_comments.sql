-- What people see first: views, and a comment on every table and column. And partitions in whatever schema
-- the tables are in.

-- ---- views ----

-- A newer session of an account is the end of an older one, whatever that says: the node of an older one may have
-- crashed, and not have told yet.
CREATE VIEW devices AS
SELECT accounts.id AS account_id, accounts.name, accounts.enabled,
       session.attached_at IS NOT NULL AND session.ended_at IS NULL AS online,
       session.node, host(session.source) AS source,
       coalesce(session.ended_at, session.attached_at) AS since,
       session.reason, accounts.last_login_at, accounts.firmware, accounts.created_at
FROM accounts
LEFT JOIN LATERAL (
    SELECT node, source, attached_at, ended_at, reason FROM sessions
    WHERE account_id = accounts.id
    ORDER BY epoch DESC
    LIMIT 1
) AS session ON true;

-- For each account one look at the key in the last day, and only where that has nothing at all others: of the
-- two branches the second is read when the first has no row.
-- A clock that ran ahead when it was read is not trusted, then or later: 5 minutes are what a login may be off.
CREATE VIEW latest_position AS
SELECT accounts.id AS account_id, accounts.name, latest.recorded_at, latest.received_at, latest.latitude,
       latest.longitude, latest.altitude_m, latest.speed_m_s, latest.heading_deg
FROM accounts
CROSS JOIN LATERAL (
    SELECT recent.* FROM (
        SELECT recorded_at, received_at, latitude, longitude, altitude_m, speed_m_s, heading_deg FROM telemetry_gps
        WHERE account_id = accounts.id
          AND recorded_at > now() - interval '1 day' AND recorded_at <= now() + interval '5 minutes'
          AND recorded_at <= received_at + interval '5 minutes' AND latitude IS NOT NULL AND longitude IS NOT NULL
        ORDER BY recorded_at DESC, seq DESC
        LIMIT 1
    ) AS recent
    UNION ALL
    SELECT older.* FROM (
        SELECT recorded_at, received_at, latitude, longitude, altitude_m, speed_m_s, heading_deg FROM telemetry_gps
        WHERE account_id = accounts.id AND recorded_at <= now() - interval '1 day'
          AND recorded_at <= received_at + interval '5 minutes' AND latitude IS NOT NULL AND longitude IS NOT NULL
        ORDER BY recorded_at DESC, seq DESC
        LIMIT 1
    ) AS older
    LIMIT 1
) AS latest;

-- Records with the name of their device, which is NULL where the account was removed.
CREATE VIEW gps AS SELECT accounts.name, record.*
    FROM telemetry_gps AS record LEFT JOIN accounts ON accounts.id = account_id;
CREATE VIEW fuel AS SELECT accounts.name, record.*
    FROM telemetry_fuel AS record LEFT JOIN accounts ON accounts.id = account_id;
CREATE VIEW gyroscope AS SELECT accounts.name, record.*
    FROM telemetry_gyroscope AS record LEFT JOIN accounts ON accounts.id = account_id;
CREATE VIEW diagnosis AS SELECT accounts.name, record.*
    FROM telemetry_diagnosis AS record LEFT JOIN accounts ON accounts.id = account_id;
CREATE VIEW custom AS SELECT accounts.name, record.*
    FROM telemetry_custom AS record LEFT JOIN accounts ON accounts.id = account_id;

-- ---- comments ----

COMMENT ON TABLE accounts IS
    'Devices that may log in. SELECT * is for conn servers: rcu_read may read every column but sealed_key, and the view devices';
COMMENT ON COLUMN accounts.id IS 'never used again, also when the account is removed';
COMMENT ON COLUMN accounts.name IS 'what the device logs in with: 1 to 32 of A-Z a-z 0-9 . _ : -';
COMMENT ON COLUMN accounts.sealed_key IS 'the device''s key, encrypted under the master key, which is not in the database';
COMMENT ON COLUMN accounts.enabled IS 'false: its logins are refused';
COMMENT ON COLUMN accounts.version IS 'grows with every change of key or enabled';
COMMENT ON COLUMN accounts.created_at IS 'when it was added';
COMMENT ON COLUMN accounts.firmware IS 'what the device said at its last login';
COMMENT ON COLUMN accounts.last_login_at IS 'NULL: it never logged in';
COMMENT ON COLUMN accounts.last_source IS 'address that the last login came from';
COMMENT ON COLUMN accounts.last_node IS 'logic server that the last login was sent to';

COMMENT ON TABLE account_changes IS 'Every change of an account; the conn servers follow it. It has the names of removed ones, too';
COMMENT ON COLUMN account_changes.id IS 'grows in the order in which changes became visible';
COMMENT ON COLUMN account_changes.account_id IS 'accounts.id; the account may be gone';
COMMENT ON COLUMN account_changes.name IS 'of the account';
COMMENT ON COLUMN account_changes.change IS 'added, enabled, disabled, key_rotated or removed';
COMMENT ON COLUMN account_changes.version IS 'of the account after the change';
COMMENT ON COLUMN account_changes.changed_at IS 'when it was changed';

COMMENT ON TABLE epoch_marks IS 'How far each conn server''s epochs have been given out; it starts above its mark';
COMMENT ON COLUMN epoch_marks.node_number IS 'node_number of the conn server';
COMMENT ON COLUMN epoch_marks.mark IS 'every epoch that it has published lies below';

COMMENT ON TABLE sessions IS
    'Devices that were online. A row without ended_at is live, unless the account has one of a higher epoch';
COMMENT ON COLUMN sessions.account_id IS 'accounts.id; the account may be gone';
COMMENT ON COLUMN sessions.epoch IS 'orders the sessions of an account';
COMMENT ON COLUMN sessions.node IS 'logic server that had it';
COMMENT ON COLUMN sessions.source IS 'address that the device came from';
COMMENT ON COLUMN sessions.attached_at IS 'its beginning';
COMMENT ON COLUMN sessions.ended_at IS 'its end; NULL: none yet. Of reason crash: when its logic server started again';
COMMENT ON COLUMN sessions.reason IS 'why it ended; crash: its logic server ended without having written the end';

COMMENT ON TABLE telemetry_gps IS 'Positions: records of kind 1';
COMMENT ON COLUMN telemetry_gps.latitude IS 'degrees, WGS 84';
COMMENT ON COLUMN telemetry_gps.longitude IS 'degrees, WGS 84';
COMMENT ON COLUMN telemetry_gps.altitude_m IS 'metres';
COMMENT ON COLUMN telemetry_gps.speed_m_s IS 'metres per second';
COMMENT ON COLUMN telemetry_gps.heading_deg IS 'degrees clockwise from north, below 360';
COMMENT ON COLUMN telemetry_gps.satellites IS 'how many are used';
COMMENT ON COLUMN telemetry_gps.hdop IS 'horizontal dilution of precision';

COMMENT ON TABLE telemetry_fuel IS 'Fuel: records of kind 2';
COMMENT ON COLUMN telemetry_fuel.level_percent IS 'of the tank, 0 to 100';
COMMENT ON COLUMN telemetry_fuel.rate_ml_h IS 'millilitres per hour, now';
COMMENT ON COLUMN telemetry_fuel.used_ml IS 'millilitres since manufacture; begins again where the unit is replaced';

COMMENT ON TABLE telemetry_gyroscope IS 'Motion: records of kind 3';
COMMENT ON COLUMN telemetry_gyroscope.rate_x_deg_s IS 'degrees per second about x';
COMMENT ON COLUMN telemetry_gyroscope.rate_y_deg_s IS 'degrees per second about y';
COMMENT ON COLUMN telemetry_gyroscope.rate_z_deg_s IS 'degrees per second about z';
COMMENT ON COLUMN telemetry_gyroscope.acceleration_x_g IS 'along x, in g (9.80665 m/s2)';
COMMENT ON COLUMN telemetry_gyroscope.acceleration_y_g IS 'along y, in g';
COMMENT ON COLUMN telemetry_gyroscope.acceleration_z_g IS 'along z, in g';

COMMENT ON TABLE telemetry_diagnosis IS 'What the vehicle says of itself: records of kind 4';
COMMENT ON COLUMN telemetry_diagnosis.rpm IS 'revolutions of the engine per minute';
COMMENT ON COLUMN telemetry_diagnosis.coolant_c IS 'temperature of the coolant, degrees Celsius';
COMMENT ON COLUMN telemetry_diagnosis.battery_v IS 'volts';
COMMENT ON COLUMN telemetry_diagnosis.odometer_m IS 'metres since manufacture; begins again where the unit is replaced';
COMMENT ON COLUMN telemetry_diagnosis.malfunction_lamp IS 'whether it is lit: bit 0 of flags';
COMMENT ON COLUMN telemetry_diagnosis.flags IS 'all eight bits as sent';
COMMENT ON COLUMN telemetry_diagnosis.trouble_codes IS 'for example P0301 C0123; empty for none';

COMMENT ON TABLE telemetry_custom IS 'The fleet''s own records (kind 5, by channel), and those of kinds that this version does not know';
COMMENT ON COLUMN telemetry_custom.kind IS '5, or one that this version does not know';
COMMENT ON COLUMN telemetry_custom.channel IS 'NULL: of a kind that this version does not know';
COMMENT ON COLUMN telemetry_custom.payload IS 'as the device sent it';

COMMENT ON TABLE dead_letter IS 'Records that could not be stored as what they claim to be, as they came';
COMMENT ON COLUMN dead_letter.kind IS 'what it claims to be';
COMMENT ON COLUMN dead_letter.payload IS 'as the device sent it';
COMMENT ON COLUMN dead_letter.reason IS 'why it is here';

COMMENT ON TABLE _sqlx_migrations IS 'Versions of this schema; rcu db migrate writes it';
COMMENT ON COLUMN _sqlx_migrations.version IS 'of the schema';
COMMENT ON COLUMN _sqlx_migrations.description IS 'what it brought';
COMMENT ON COLUMN _sqlx_migrations.installed_on IS 'since when the database has it';
COMMENT ON COLUMN _sqlx_migrations.success IS 'false: it was begun, and did not come to its end';
COMMENT ON COLUMN _sqlx_migrations.checksum IS 'of its statements';
COMMENT ON COLUMN _sqlx_migrations.execution_time IS 'nanoseconds; -1: not measured';

COMMENT ON VIEW devices IS 'Each account with what it is now: a row a device, without its key';
COMMENT ON COLUMN devices.online IS 'whether it has a session';
COMMENT ON COLUMN devices.node IS 'logic server that it is or was on; NULL: it never was online';
COMMENT ON COLUMN devices.source IS 'address that it comes or came from';
COMMENT ON COLUMN devices.since IS 'since when it is online, or, where it is not, offline; NULL: it never was online';
COMMENT ON COLUMN devices.reason IS 'why it is offline; NULL: it is online, or never was';

COMMENT ON VIEW latest_position IS
    'Where each device was last. Passed over: records without a fix, and those whose device had a clock more than 5 minutes ahead';

COMMENT ON VIEW gps IS 'telemetry_gps with the names of the devices';
COMMENT ON VIEW fuel IS 'telemetry_fuel with the names of the devices';
COMMENT ON VIEW gyroscope IS 'telemetry_gyroscope with the names of the devices';
COMMENT ON VIEW diagnosis IS 'telemetry_diagnosis with the names of the devices';
COMMENT ON VIEW custom IS 'telemetry_custom with the names of the devices';

COMMENT ON COLUMN devices.account_id IS 'accounts.id';
COMMENT ON COLUMN latest_position.account_id IS 'accounts.id';

-- The key of every record; then what a view shows is said as where it comes from.
DO $$
DECLARE
    place regclass;
    shown record;
BEGIN
    FOREACH place IN ARRAY ARRAY['telemetry_gps', 'telemetry_fuel', 'telemetry_gyroscope', 'telemetry_diagnosis',
                                 'telemetry_custom', 'dead_letter']::regclass[] LOOP
        EXECUTE format($said$
            COMMENT ON COLUMN %1$s.account_id IS 'accounts.id; the account may be gone';
            COMMENT ON COLUMN %1$s.recorded_at IS 'the device''s clock; 1970-01-01: it never knew the time';
            COMMENT ON COLUMN %1$s.seq IS 'the device''s own number: boot x 2^32 + n, over all kinds';
            COMMENT ON COLUMN %1$s.received_at IS 'the server''s clock'
        $said$, place);
    END LOOP;
    FOR shown IN
        SELECT seen, seen_column.attname AS name, col_description(source, source_column.attnum) AS says
        FROM unnest(ARRAY['devices', 'latest_position', 'latest_position', 'gps', 'gps', 'fuel', 'fuel', 'gyroscope',
                          'gyroscope', 'diagnosis', 'diagnosis', 'custom', 'custom']::regclass[],
                    ARRAY['accounts', 'accounts', 'telemetry_gps', 'accounts', 'telemetry_gps', 'accounts',
                          'telemetry_fuel', 'accounts', 'telemetry_gyroscope', 'accounts', 'telemetry_diagnosis',
                          'accounts', 'telemetry_custom']::regclass[]) AS comes (seen, source)
        JOIN pg_attribute AS seen_column ON seen_column.attrelid = seen AND seen_column.attnum > 0
        JOIN pg_attribute AS source_column
            ON source_column.attrelid = source AND source_column.attname = seen_column.attname
        WHERE col_description(seen, seen_column.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', shown.seen, shown.name, shown.says);
    END LOOP;
END
$$;

-- ---- partitions ----

-- As before, but in the schema that the tables are in, whichever that is.
CREATE OR REPLACE FUNCTION rcu_ensure_partition(day date) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET lock_timeout = '500ms'
    SET timezone = 'UTC'
AS $$
DECLARE
    parent text;
    part text;
    low timestamptz := day::timestamptz;
    high timestamptz := (day + 1)::timestamptz;
    made integer := 0;
BEGIN
    IF day NOT BETWEEN current_date - 60 AND current_date + 60 THEN
        RAISE EXCEPTION 'a partition for % is too far from today', day;
    END IF;
    -- In the order in which batches are written, so that no two wait for each other.
    FOREACH parent IN ARRAY ARRAY['telemetry_gps', 'telemetry_fuel', 'telemetry_gyroscope',
                                  'telemetry_diagnosis', 'telemetry_custom'] LOOP
        part := parent || to_char(day, '_YYYYMMDD');
        -- Not to_regclass(): that remembers what was not there before the lock.
        CONTINUE WHEN EXISTS (SELECT FROM pg_class
                              WHERE relname = part AND relnamespace = quote_ident(current_schema())::regnamespace);
        -- One node at a time; it may be there now.
        PERFORM pg_advisory_xact_lock(x'52435531'::int, 2);
        CONTINUE WHEN EXISTS (SELECT FROM pg_class
                              WHERE relname = part AND relnamespace = quote_ident(current_schema())::regnamespace);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE recorded_at >= %L AND recorded_at < %L RETURNING *) '
                       'INSERT INTO %I SELECT * FROM moved',
                       parent || '_default', low, high, part);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       parent, part, low, high);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- It runs as the owner: so it looks for names in that schema alone, whatever its caller would have it look at.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION rcu_ensure_partition(date) SET search_path = %I, pg_temp', current_schema());
END
$$;
