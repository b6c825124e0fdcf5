-- What people see first: views with names and with times that can be read (UTC). Those of the tables are Unix
-- milliseconds, and are what a program asks for.

-- A newer session of an account is the end of an older one, whatever that says: the node of an older one may have
-- crashed, and not have told yet.
CREATE VIEW devices AS
SELECT accounts.id AS account_id, accounts.name, accounts.enabled,
       session.attached_at IS NOT NULL AND session.ended_at IS NULL AS online,
       session.node, session.source,
       strftime('%Y-%m-%d %H:%M:%f', coalesce(session.ended_at, session.attached_at) / 1000.0, 'unixepoch') AS since,
       session.reason,
       strftime('%Y-%m-%d %H:%M:%f', accounts.last_login_at / 1000.0, 'unixepoch') AS last_login_at,
       accounts.firmware,
       strftime('%Y-%m-%d %H:%M:%f', accounts.created_at / 1000.0, 'unixepoch') AS created_at
FROM accounts
LEFT JOIN sessions AS session ON session.account_id = accounts.id
    AND session.epoch = (SELECT max(epoch) FROM sessions WHERE account_id = accounts.id);

-- For each account one look at the key (CROSS JOIN: in this order). A clock that ran ahead when it was read is not trusted, then or later: 5
-- minutes are what a login may be off.
CREATE VIEW latest_position AS
SELECT accounts.id AS account_id, accounts.name,
       strftime('%Y-%m-%d %H:%M:%f', latest.recorded_at / 1000.0, 'unixepoch') AS recorded_at,
       strftime('%Y-%m-%d %H:%M:%f', latest.received_at / 1000.0, 'unixepoch') AS received_at,
       latest.latitude, latest.longitude, latest.altitude_m, latest.speed_m_s, latest.heading_deg
FROM accounts CROSS JOIN telemetry_gps AS latest ON latest.account_id = accounts.id
    AND (latest.recorded_at, latest.seq) = (
        SELECT recorded_at, seq FROM telemetry_gps
        WHERE account_id = accounts.id AND recorded_at <= 1000 * (unixepoch() + 300)
          AND recorded_at <= received_at + 300000 AND latitude IS NOT NULL AND longitude IS NOT NULL
        ORDER BY recorded_at DESC, seq DESC
        LIMIT 1
    );

-- Records with the name of their device, which is NULL where the account was removed.
CREATE VIEW gps AS
SELECT accounts.name, record.account_id,
       strftime('%Y-%m-%d %H:%M:%f', record.recorded_at / 1000.0, 'unixepoch') AS recorded_at, record.seq,
       strftime('%Y-%m-%d %H:%M:%f', record.received_at / 1000.0, 'unixepoch') AS received_at,
       record.latitude, record.longitude, record.altitude_m, record.speed_m_s, record.heading_deg, record.satellites,
       record.hdop
FROM telemetry_gps AS record LEFT JOIN accounts ON accounts.id = record.account_id;

CREATE VIEW fuel AS
SELECT accounts.name, record.account_id,
       strftime('%Y-%m-%d %H:%M:%f', record.recorded_at / 1000.0, 'unixepoch') AS recorded_at, record.seq,
       strftime('%Y-%m-%d %H:%M:%f', record.received_at / 1000.0, 'unixepoch') AS received_at,
       record.level_percent, record.rate_ml_h, record.used_ml
FROM telemetry_fuel AS record LEFT JOIN accounts ON accounts.id = record.account_id;

CREATE VIEW gyroscope AS
SELECT accounts.name, record.account_id,
       strftime('%Y-%m-%d %H:%M:%f', record.recorded_at / 1000.0, 'unixepoch') AS recorded_at, record.seq,
       strftime('%Y-%m-%d %H:%M:%f', record.received_at / 1000.0, 'unixepoch') AS received_at,
       record.rate_x_deg_s, record.rate_y_deg_s, record.rate_z_deg_s, record.acceleration_x_g,
       record.acceleration_y_g, record.acceleration_z_g
FROM telemetry_gyroscope AS record LEFT JOIN accounts ON accounts.id = record.account_id;

CREATE VIEW diagnosis AS
SELECT accounts.name, record.account_id,
       strftime('%Y-%m-%d %H:%M:%f', record.recorded_at / 1000.0, 'unixepoch') AS recorded_at, record.seq,
       strftime('%Y-%m-%d %H:%M:%f', record.received_at / 1000.0, 'unixepoch') AS received_at,
       record.rpm, record.coolant_c, record.battery_v, record.odometer_m, record.malfunction_lamp, record.flags,
       record.trouble_codes
FROM telemetry_diagnosis AS record LEFT JOIN accounts ON accounts.id = record.account_id;

CREATE VIEW custom AS
SELECT accounts.name, record.account_id,
       strftime('%Y-%m-%d %H:%M:%f', record.recorded_at / 1000.0, 'unixepoch') AS recorded_at, record.seq,
       strftime('%Y-%m-%d %H:%M:%f', record.received_at / 1000.0, 'unixepoch') AS received_at,
       record.kind, record.channel, record.payload
FROM telemetry_custom AS record LEFT JOIN accounts ON accounts.id = record.account_id;
