-- Which of the rows of a batch that are there already say something else in these columns: by account, how many. The
-- logic servers ask it, whose role reads no record: so it runs as the owner of the tables, and tells whether rows
-- are equal and nothing else of them.
--
-- For each row one look at the key: whatever the statistics say, no partition is read whole.
CREATE FUNCTION rcu_contradicting(given anyarray, said text[]) RETURNS TABLE (account_id bigint, records bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET enable_hashjoin = off
    SET enable_mergejoin = off
AS $$
DECLARE
    kept regclass := (SELECT typrelid FROM pg_type WHERE typarray = pg_typeof(given)::oid);
    differs text := (SELECT string_agg(format('kept.%1$I IS DISTINCT FROM given.%1$I', name), ' OR ')
                     FROM unnest(said) AS name);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class
                   WHERE oid = kept AND relnamespace = quote_ident(current_schema())::regnamespace
                     AND (relname LIKE 'telemetry\_%' OR relname = 'dead_letter')) THEN
        RAISE EXCEPTION 'these are no rows of records: %', pg_typeof(given);
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT given.account_id, count(*) FROM unnest($1) AS given '
        'JOIN %s AS kept USING (account_id, recorded_at, seq) WHERE %s GROUP BY given.account_id', kept, differs)
        USING given;
END
$$;

-- Whatever the caller's search path says, it is that of the tables.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION rcu_contradicting(anyarray, text[]) SET search_path = %I, pg_temp',
                   current_schema());
END
$$;

REVOKE ALL ON FUNCTION rcu_contradicting(anyarray, text[]) FROM PUBLIC;

COMMENT ON FUNCTION rcu_contradicting(anyarray, text[]) IS
    'Of rows that are there already: how many of each account say something else in these columns.';
