//! What `roles.sql` lets a role do, taken away piece by piece: a program that goes on without one of them
//! has a right that it does not need.

use crate::{Role, ServerError, TestDatabase};

/// One right as small as it can be: that of one column, where it has columns.
#[derive(Clone, Debug)]
pub struct Right {
    /// As people say it: `INSERT (speed_m_s) ON telemetry_gps`.
    pub name: String,
    take: String,
    give: String,
}

/// Whatever is granted to ROLE itself in a schema of ours: a line for each, as a [`Right`] has it.
const RIGHTS: &str = "
    WITH tables AS (
        SELECT c.oid, c.oid::regclass AS name, a.privilege_type AS may
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE a.grantee = 'ROLE'::regrole AND c.relnamespace = 'public'::regnamespace
    ), columns AS (
        SELECT t.name, t.may, a.attname, (
            SELECT string_agg(quote_ident(other.attname), ', ') FROM pg_attribute AS other
            WHERE other.attrelid = t.oid AND other.attnum > 0 AND NOT other.attisdropped
                AND other.attnum <> a.attnum
        ) AS others
        FROM tables AS t JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE t.may IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
    )
    SELECT format('%s (%I) ON %s', may, attname, name)
        || '|' || format('REVOKE %s ON %s FROM ROLE; GRANT %1$s (%3$s) ON %2$s TO ROLE', may, name, others)
        || '|' || format('REVOKE %s ON %s FROM ROLE; GRANT %1$s ON %2$s TO ROLE', may, name)
    FROM columns
    UNION ALL
    SELECT format('%s ON %s', may, name)
        || '|' || format('REVOKE %s ON %s FROM ROLE', may, name)
        || '|' || format('GRANT %s ON %s TO ROLE', may, name)
    FROM tables WHERE may NOT IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
    UNION ALL
    SELECT format('%s (%I) ON %s', a.privilege_type, attname, attrelid::regclass)
        || '|' || format('REVOKE %s (%I) ON %s FROM ROLE', a.privilege_type, attname, attrelid::regclass)
        || '|' || format('GRANT %s (%I) ON %s TO ROLE', a.privilege_type, attname, attrelid::regclass)
    FROM pg_attribute, aclexplode(attacl) AS a WHERE a.grantee = 'ROLE'::regrole
    UNION ALL
    SELECT format('EXECUTE %s', p.oid::regprocedure)
        || '|' || format('REVOKE EXECUTE ON FUNCTION %s FROM ROLE', p.oid::regprocedure)
        || '|' || format('GRANT EXECUTE ON FUNCTION %s TO ROLE', p.oid::regprocedure)
    FROM pg_proc AS p, aclexplode(p.proacl) AS a WHERE a.grantee = 'ROLE'::regrole
    UNION ALL
    SELECT format('%s ON SCHEMA %I', a.privilege_type, nspname)
        || '|' || format('REVOKE %s ON SCHEMA %I FROM ROLE', a.privilege_type, nspname)
        || '|' || format('GRANT %s ON SCHEMA %I TO ROLE', a.privilege_type, nspname)
    FROM pg_namespace, aclexplode(nspacl) AS a WHERE a.grantee = 'ROLE'::regrole
    UNION ALL
    SELECT format('%s ON DATABASE', a.privilege_type)
        || '|' || format('REVOKE %s ON DATABASE %I FROM ROLE', a.privilege_type, datname)
        || '|' || format('GRANT %s ON DATABASE %I TO ROLE', a.privilege_type, datname)
    FROM pg_database, aclexplode(datacl) AS a
    WHERE a.grantee = 'ROLE'::regrole AND datname = current_database()
    ORDER BY 1";

impl TestDatabase {
    /// All that a role may.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn rights(&self, role: Role) -> Result<Vec<Right>, ServerError> {
        let listed = self.sql(&RIGHTS.replace("ROLE", role.name()))?;
        let rights = listed.lines().filter_map(|line| {
            let mut parts = line.split('|').map(str::to_owned);
            Some(Right {
                name: parts.next()?,
                take: parts.next()?,
                give: parts.next()?,
            })
        });
        Ok(rights.collect())
    }

    /// Takes a right away; [`TestDatabase::give`] gives it back.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn take(&self, right: &Right) -> Result<(), ServerError> {
        self.sql(&right.take).map(drop)
    }

    /// # Errors
    /// The server does not answer.
    pub fn give(&self, right: &Right) -> Result<(), ServerError> {
        self.sql(&right.give).map(drop)
    }
}
