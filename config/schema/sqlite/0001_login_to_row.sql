-- Accounts, telemetry and presence of one RCU cluster in one SQLite file.
-- Times are Unix milliseconds (UTC). Tables are STRICT: a value of the wrong type is refused, not kept.

CREATE TABLE accounts (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused
    name          TEXT    NOT NULL UNIQUE,            -- 1 to 32 of A-Z a-z 0-9 . _ : -
    sealed_key    BLOB    NOT NULL,                   -- the device's key under the master key
    enabled       INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    version       INTEGER NOT NULL DEFAULT 1,         -- grows with every change of key or enabled
    created_at    INTEGER NOT NULL,
    firmware      TEXT,                               -- as of the last login
    last_login_at INTEGER,
    last_source   TEXT,                               -- address of the last login
    last_node     TEXT                                -- logic server of the last login
) STRICT;

-- One row per change of an account, followed by the conn servers. No foreign key: a removed account has one too.
CREATE TABLE account_changes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    change     TEXT    NOT NULL CHECK (change IN ('added', 'enabled', 'disabled', 'key_rotated', 'removed')),
    version    INTEGER NOT NULL,                      -- of the account after the change
    changed_at INTEGER NOT NULL
) STRICT;

-- Every epoch that a conn server of this number has published lies below its mark.
CREATE TABLE epoch_marks (
    node_number INTEGER PRIMARY KEY CHECK (node_number BETWEEN 0 AND 1023),
    mark        INTEGER NOT NULL
) STRICT;

-- Who was online, when, where. The row without ended_at is a live session.
CREATE TABLE sessions (
    account_id  INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    node        TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    attached_at INTEGER NOT NULL,
    ended_at    INTEGER,
    reason      TEXT,
    PRIMARY KEY (account_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_live ON sessions (node) WHERE ended_at IS NULL;

-- The primary key of every telemetry table is what makes a record unique, and the index for "this device, that time".
CREATE TABLE telemetry_gps (
    account_id  INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    latitude    REAL CHECK (latitude BETWEEN -90 AND 90),       -- degrees
    longitude   REAL CHECK (longitude BETWEEN -180 AND 180),    -- degrees
    altitude_m  REAL,
    speed_m_s   REAL,
    heading_deg REAL CHECK (heading_deg >= 0 AND heading_deg < 360),
    satellites  INTEGER,
    hdop        REAL,
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry_fuel (
    account_id    INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    received_at   INTEGER NOT NULL,
    level_percent REAL CHECK (level_percent BETWEEN 0 AND 100),
    rate_ml_h     INTEGER,
    used_ml       INTEGER,                                       -- since manufacture
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry_gyroscope (
    account_id       INTEGER NOT NULL,
    recorded_at      INTEGER NOT NULL,
    seq              INTEGER NOT NULL,
    received_at      INTEGER NOT NULL,
    rate_x_deg_s     REAL,
    rate_y_deg_s     REAL,
    rate_z_deg_s     REAL,
    acceleration_x_g REAL,
    acceleration_y_g REAL,
    acceleration_z_g REAL,
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry_diagnosis (
    account_id       INTEGER NOT NULL,
    recorded_at      INTEGER NOT NULL,
    seq              INTEGER NOT NULL,
    received_at      INTEGER NOT NULL,
    rpm              INTEGER,
    coolant_c        REAL,
    battery_v        REAL,
    odometer_m       INTEGER,
    malfunction_lamp INTEGER NOT NULL CHECK (malfunction_lamp IN (0, 1)),
    flags            INTEGER NOT NULL,                           -- all eight bits as sent
    trouble_codes    TEXT    NOT NULL,                           -- 'P0301 C0123', '' for none
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;

-- Custom records by channel; kinds that this version does not know, with channel NULL.
CREATE TABLE telemetry_custom (
    account_id  INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    channel     INTEGER,
    payload     BLOB    NOT NULL,
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;

-- Records that could not be stored as what they claim to be: as they came, with the reason.
CREATE TABLE dead_letter (
    account_id  INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    PRIMARY KEY (account_id, recorded_at, seq)
) STRICT, WITHOUT ROWID;
