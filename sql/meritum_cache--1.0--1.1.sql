-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "ALTER EXTENSION meritum_cache UPDATE TO '1.1'" to load this file. \quit

/*
 * Statistics
 */

CREATE TABLE meritum_cache.stat_baseline (
	provider_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	refreshes bigint NOT NULL,
	invalidations bigint NOT NULL,
	reset_at timestamptz NOT NULL,
	CONSTRAINT stat_baseline_pkey PRIMARY KEY (provider_id)
);

COMMENT ON TABLE meritum_cache.stat_baseline IS
'the counters of meritum_cache.provider_state at the last meritum_stat_reset(), which meritum_cache.stat_provider takes off them; a row counts only while created_at is that of the provider''s state';

ALTER TABLE meritum_cache.stat_baseline ENABLE ROW LEVEL SECURITY;

CREATE POLICY provider ON meritum_cache.stat_baseline FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));

CREATE FUNCTION meritum_cache.refresh_statistics(
	OUT cause text, OUT refreshes bigint, OUT entries_written bigint,
	OUT entries_unchanged bigint, OUT errors bigint,
	OUT total_ms double precision, OUT max_ms double precision,
	OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'refresh_statistics'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 7;

COMMENT ON FUNCTION meritum_cache.refresh_statistics() IS
'the rows of meritum_cache.stat_refresh; error 55000 unless the library is in shared_preload_libraries';

CREATE VIEW meritum_cache.stat_refresh AS
SELECT s.cause, s.refreshes, s.entries_written, s.entries_unchanged, s.errors,
	   s.total_ms, s.max_ms, s.stats_reset
  FROM meritum_cache.refresh_statistics() s;

COMMENT ON VIEW meritum_cache.stat_refresh IS
'refreshes of this database by cause, one row each, whether or not their transaction committed: entries_written were inserted or got another value, entries_unchanged only another computed_at; errors are attempts that failed, of a refresh or of a custom metric in one; total_ms and max_ms are milliseconds of the refreshes that did not, waits for locks included; counted since stats_reset (null: nothing yet); kept over a clean restart, from zero after a crash; error 55000 unless the library is in shared_preload_libraries';

-- With the caller's rights, and so under row security.
CREATE VIEW meritum_cache.stat_provider WITH (security_invoker) AS
SELECT s.provider_id,
	   s.refreshes OPERATOR(pg_catalog.-) coalesce(b.refreshes, 0) AS refreshes,
	   CASE WHEN s.refreshes OPERATOR(pg_catalog.>) coalesce(b.refreshes, 0)
			THEN s.refreshed_at END AS refreshed_at,
	   CASE WHEN s.refreshes OPERATOR(pg_catalog.>) coalesce(b.refreshes, 0)
			THEN s.refresh_cause END AS refresh_cause,
	   s.invalidations OPERATOR(pg_catalog.-) coalesce(b.invalidations, 0) AS invalidations,
	   CASE WHEN s.invalidations OPERATOR(pg_catalog.>) coalesce(b.invalidations, 0)
			THEN s.invalidated_at END AS invalidated_at,
	   coalesce(b.reset_at, s.created_at) AS stats_reset
  FROM meritum_cache.provider_state s
  LEFT JOIN meritum_cache.stat_baseline b
	ON b.provider_id OPERATOR(pg_catalog.=) s.provider_id
   AND b.created_at OPERATOR(pg_catalog.=) s.created_at;

COMMENT ON VIEW meritum_cache.stat_provider IS
'for each provider, since stats_reset: refreshes that wrote figures, the last of them and its cause; invalidations, that is months (or other parts) that a refresh found noted as changed and metrics that an event named, and when the last of them was refreshed; what was rolled back is not counted; kept over restarts and crashes; needs no preloaded library';

CREATE FUNCTION @extschema@.meritum_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_stat_reset'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_stat_reset() IS
'clears the counters of meritum_cache.stat_refresh, which a rollback does not bring back, and of meritum_cache.stat_provider, in this database; error 42501 pinned';

-- Whoever updates the extension need not be its owner.  Before privileges are
-- revoked, so that what is remembered of these names no other role.
DO $do$
DECLARE
	v_owner pg_catalog.regrole := (
		SELECT c.relowner FROM pg_catalog.pg_class c
		 WHERE c.oid OPERATOR(pg_catalog.=) 'meritum_cache.provider_state'::pg_catalog.regclass);
	v_object text;
BEGIN
	FOREACH v_object IN ARRAY ARRAY[
		'TABLE meritum_cache.stat_baseline',
		'VIEW meritum_cache.stat_refresh',
		'VIEW meritum_cache.stat_provider',
		'FUNCTION meritum_cache.refresh_statistics()',
		'FUNCTION @extschema@.meritum_stat_reset()']
	LOOP
		EXECUTE pg_catalog.format('ALTER %s OWNER TO %s', v_object, v_owner);
	END LOOP;
END
$do$;

-- Default privileges of the database may have opened what is new.
DO $do$
DECLARE
	v_object text;
BEGIN
	FOR v_object IN
		SELECT 'TABLE ' OPERATOR(pg_catalog.||) c.oid::pg_catalog.regclass::text
		  FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
		 WHERE c.relnamespace OPERATOR(pg_catalog.=) 'meritum_cache'::pg_catalog.regnamespace::pg_catalog.oid
		   AND a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
		UNION
		SELECT 'SCHEMA meritum_cache'
		  FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
		 WHERE n.nspname OPERATOR(pg_catalog.=) 'meritum_cache'
		   AND a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM PUBLIC', v_object);
	END LOOP;
END
$do$;

REVOKE ALL ON FUNCTION meritum_cache.refresh_statistics() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_stat_reset() FROM PUBLIC;
