-- Which of the rows of a batch that are there already say something else: by account, how many. The logic servers ask
-- it, whose role reads no record: so it runs as the owner of the tables, and tells whether rows are equal and
-- nothing else of them. What came when is no part of what a device said, nor why a record was set aside.
--
-- For each row one look at the key: whatever the statistics say, no partition is read whole.
CREATE FUNCTION rcu_contradicting(given anyarray) RETURNS TABLE (account_id bigint, records bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET enable_hashjoin = off
    SET enable_mergejoin = off
AS $$
DECLARE
    place regnamespace;
    kept regclass;
    said text;
BEGIN
    SELECT pronamespace INTO place FROM pg_proc WHERE proname = 'rcu_contradicting' AND pronamespace = current_schema()::regnamespace;
    SELECT typrelid::regclass INTO kept FROM pg_type WHERE oid = (SELECT typelem FROM pg_type WHERE oid = pg_typeof(given)::oid);
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = kept AND relnamespace = place
                   AND (relname LIKE 'telemetry\_%' OR relname = 'dead_letter')) THEN
        RAISE EXCEPTION 'these are no rows of records: %', pg_typeof(given);
    END IF;
    SELECT string_agg(format('kept.%1$I IS DISTINCT FROM given.%1$I', attname), ' OR ' ORDER BY attnum) INTO said
        FROM pg_attribute WHERE attrelid = kept AND attnum > 0 AND NOT attisdropped
        AND attname NOT IN ('account_id', 'recorded_at', 'seq', 'received_at', 'reason');
    RETURN QUERY EXECUTE format(
        'SELECT given.account_id, count(*) FROM unnest($1) AS given JOIN %s AS kept USING (account_id, recorded_at, seq) '
        'WHERE %s GROUP BY given.account_id', kept, said) USING given;
END
$$;

-- Whatever the caller's search path says, it is that of the tables.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION rcu_contradicting(anyarray) SET search_path = %I, pg_temp', current_schema());
END
$$;

REVOKE ALL ON FUNCTION rcu_contradicting(anyarray) FROM PUBLIC;

COMMENT ON FUNCTION rcu_contradicting(anyarray) IS
    'Of rows that are there already: how many of each account say something else.';
