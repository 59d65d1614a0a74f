-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION meritum_cache" to load this file. \quit

CREATE SCHEMA meritum_cache;

COMMENT ON SCHEMA meritum_cache IS
'tables of the extension meritum_cache; its functions meritum_* are in the schema chosen at CREATE EXTENSION';

/*
 * Tables
 */

CREATE TABLE meritum_cache.analytics_cache (
	cache_id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	provider_id uuid NOT NULL,
	metric_key pg_catalog.varchar(50) NOT NULL,
	period_start date NOT NULL,
	period_end date NOT NULL,
	dimensions jsonb,
	value jsonb NOT NULL,
	computed_at timestamptz NOT NULL,
	CONSTRAINT analytics_cache_pkey PRIMARY KEY (cache_id),
	CONSTRAINT analytics_cache_key UNIQUE NULLS NOT DISTINCT
		(provider_id, metric_key, period_start, period_end, dimensions),
	CONSTRAINT analytics_cache_period_check CHECK (period_end >= period_start)
) WITH (fillfactor = 50, toast_tuple_target = 4080);

COMMENT ON TABLE meritum_cache.analytics_cache IS
'one computed figure of one provider in each row; dimensions is null for the provider''s total';

-- A summarizing index keeps updates of computed_at HOT only from version 16
-- on; before that it would double the cost of every refresh.
DO $do$
BEGIN
	IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000 THEN
		CREATE INDEX analytics_cache_computed_at ON meritum_cache.analytics_cache
			USING brin (computed_at);
	END IF;
END
$do$;

CREATE TABLE meritum_cache.metric (
	metric_key pg_catalog.varchar(50) NOT NULL,
	grain text NOT NULL,
	breakdown boolean NOT NULL,
	description text NOT NULL,
	query text,
	search_path text,
	owner pg_catalog.regrole,
	CONSTRAINT metric_pkey PRIMARY KEY (metric_key),
	CONSTRAINT metric_grain_check CHECK (grain IN ('monthly', 'snapshot')),
	CONSTRAINT metric_query_check CHECK
		((query IS NULL) = (search_path IS NULL) AND (query IS NULL) = (owner IS NULL))
);

COMMENT ON TABLE meritum_cache.metric IS
'the metrics that the extension keeps: grain monthly is stored for each month, snapshot under the running month; breakdown says whether rows with dimensions are kept as well; query, search_path and owner are those of a metric made by meritum_create_metric, null for a built-in one';

CREATE TABLE meritum_cache.metric_state (
	provider_id uuid NOT NULL,
	metric_key pg_catalog.varchar(50) NOT NULL,
	full_from date,
	full_to date,
	snapshot_on date,
	CONSTRAINT metric_state_pkey PRIMARY KEY (provider_id, metric_key)
) WITH (fillfactor = 50);

COMMENT ON TABLE meritum_cache.metric_state IS
'what is stored of the metrics made by meritum_create_metric: all figures of the months full_from to full_to, those that the query returned no row for included; snapshot_on is the day as of which a snapshot is right';

CREATE TABLE meritum_cache.event_metric (
	event_type text NOT NULL,
	metric_key pg_catalog.varchar(50) NOT NULL,
	CONSTRAINT event_metric_pkey PRIMARY KEY (event_type, metric_key)
);

COMMENT ON TABLE meritum_cache.event_metric IS
'the event map: which metrics are recomputed when a claim enters the state event_type (lower case), or when meritum_handle_event or a trigger of meritum_attach_event raises the event';

CREATE TABLE meritum_cache.source_table (
	source text NOT NULL,
	relation pg_catalog.regclass NOT NULL,
	columns jsonb NOT NULL,
	attached_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT source_table_pkey PRIMARY KEY (source)
);

COMMENT ON TABLE meritum_cache.source_table IS
'the attached application tables: columns maps the names that the extension uses to those of the table';

CREATE TABLE meritum_cache.claim_fact (
	provider_id uuid NOT NULL,
	date_of_service date NOT NULL,
	claim_id uuid NOT NULL,
	state text,
	claim_type text,
	has_ahcip_detail boolean NOT NULL,
	has_wcb_detail boolean NOT NULL,
	ba_number text,
	functional_centre text,
	hsc_code text,
	submitted_fee bigint NOT NULL,
	assessed_fee bigint NOT NULL,
	wcb_amount bigint NOT NULL,
	shadow_billing boolean NOT NULL,
	time_spent integer NOT NULL,
	rejection_codes text[],
	form_id text,
	timing_tier text,
	province text,
	once_rejected boolean NOT NULL,
	submission_deadline date,
	created_on date,
	resolved_on date,
	CONSTRAINT claim_fact_pkey PRIMARY KEY (provider_id, date_of_service, claim_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE meritum_cache.claim_fact IS
'what the metrics read of each live claim; amounts in ten-thousandths of a dollar, state in upper case, a column that no metric reads in the claim''s state is null';

CREATE TABLE meritum_cache.provider_state (
	provider_id uuid NOT NULL,
	version bigint NOT NULL DEFAULT 0,
	facts_zone text,
	oldest_computed_at timestamptz,
	full_from date,
	full_to date,
	snapshot_on date,
	drift bigint NOT NULL DEFAULT 0,
	refreshed_at timestamptz,
	refresh_cause text,
	batch_run bigint,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	refreshes bigint NOT NULL DEFAULT 0,
	invalidations bigint NOT NULL DEFAULT 0,
	invalidated_at timestamptz,
	places text[],
	dimensions integer,
	CONSTRAINT provider_state_pkey PRIMARY KEY (provider_id)
) WITH (fillfactor = 50);

COMMENT ON TABLE meritum_cache.provider_state IS
'one row for each provider: version grows with each change of its figures; facts_zone is null until the facts are complete; oldest_computed_at is a lower bound over the figures that a refresh keeps current; all monthly figures from full_from to full_to are stored; snapshot_on is the day as of which the snapshot figures are right, null when a change has outdated them; drift counts the claims that were ever found changed without a note, refreshes the refreshes that wrote figures, invalidations the months (or other parts) that a refresh found noted as changed, or that an event named; places holds the active practice locations, id, name, functional centre and rate in ten-thousandths of each; dimensions is the set of breakdowns that the figures were last written with, a bit for each of claim_type, ba_number and location_id';

CREATE TABLE meritum_cache.pending_refresh (
	note_id bigint GENERATED ALWAYS AS IDENTITY,
	provider_id uuid,
	month date,
	claims uuid[],
	scope text NOT NULL,
	keys uuid[],
	cause text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	attempts integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	seen_xmax xid8,
	sqlstate text,
	message text,
	metric_key pg_catalog.varchar(50),
	CONSTRAINT pending_refresh_pkey PRIMARY KEY (note_id)
);

CREATE INDEX pending_refresh_provider_id ON meritum_cache.pending_refresh (provider_id);

COMMENT ON TABLE meritum_cache.pending_refresh IS
'durable notes of what is still to be refreshed: scope says of what kind a note is (claims: the claims of a month; month: all of a month; provider: all of a provider; metric: what is stored of metric_key, or its month; restore: everything, once a restore is complete; or the source table whose keys are to be looked up)';

-- With the caller's rights, and so under row security.
CREATE VIEW meritum_cache.failed_refresh WITH (security_invoker) AS
SELECT p.provider_id,
	   pg_catalog.min(p.created_at) AS since,
	   pg_catalog.max(p.attempts) AS attempts,
	   (pg_catalog.array_agg(p.sqlstate ORDER BY p.note_id DESC))[1] AS sqlstate,
	   pg_catalog.concat('metric "' OPERATOR(pg_catalog.||) p.metric_key OPERATOR(pg_catalog.||) '": ',
						 (pg_catalog.array_agg(p.message ORDER BY p.note_id DESC))[1]) AS message
  FROM meritum_cache.pending_refresh p
 WHERE p.attempts OPERATOR(pg_catalog.>=) 10
 GROUP BY p.provider_id, p.metric_key;

COMMENT ON VIEW meritum_cache.failed_refresh IS
'providers whose refresh failed ten times and is parked, as a whole or of one metric, which message names then; meritum_refresh_provider_metrics(provider_id) tries again and releases it';

CREATE TABLE meritum_cache.job (
	name text NOT NULL,
	schedule text NOT NULL,
	timezone text,
	command text NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	timeout interval,
	owner pg_catalog.regrole NOT NULL,
	CONSTRAINT job_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE meritum_cache.job IS
'scheduled commands: schedule is minute, hour, day of month, month, day of week; timezone null means meritum_cache.timezone; each runs as its owner';

CREATE TABLE meritum_cache.default_row (
	relation text NOT NULL,
	key text NOT NULL,
	metric_key text NOT NULL,
	CONSTRAINT default_row_pkey PRIMARY KEY (relation, key, metric_key)
);

COMMENT ON TABLE meritum_cache.default_row IS
'the rows of job and event_metric that CREATE EXTENSION makes: key is the job or the event type, metric_key empty for a job; a dump carries those that have been removed';

CREATE TABLE meritum_cache.job_state (
	name text NOT NULL,
	schedule text NOT NULL,
	timezone text NOT NULL,
	next_run_at timestamptz,
	computed_at timestamptz,
	CONSTRAINT job_state_pkey PRIMARY KEY (name)
) WITH (fillfactor = 50);

COMMENT ON TABLE meritum_cache.job_state IS
'the worker''s memory of when each enabled job is due next, by the schedule and time zone that it was computed from, and what the clock showed then; next_run_at is null if never';

CREATE TABLE meritum_cache.job_run (
	run_id bigint GENERATED ALWAYS AS IDENTITY,
	job_name text NOT NULL,
	scheduled_at timestamptz,
	queued_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	started_at timestamptz,
	finished_at timestamptz,
	status text NOT NULL,
	pid integer,
	as_of date,
	batch_run bigint,
	providers_done bigint,
	providers_total bigint,
	entries bigint,
	errors jsonb,
	message text,
	CONSTRAINT job_run_pkey PRIMARY KEY (run_id),
	CONSTRAINT job_run_status_check
		CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'aborted'))
);

CREATE INDEX job_run_job_name ON meritum_cache.job_run (job_name, run_id);
CREATE INDEX job_run_unfinished ON meritum_cache.job_run (job_name)
	WHERE status IN ('queued', 'running');

COMMENT ON TABLE meritum_cache.job_run IS
'one row for each run of a job, updated while it runs; scheduled_at is null for one that was asked for; as_of, batch_run (the run that a batch continues, or itself), providers_* and entries are filled by meritum_refresh_all_providers';

CREATE VIEW meritum_cache.job_status WITH (security_invoker) AS
SELECT j.name, j.schedule,
	   coalesce(j.timezone, s.timezone) AS timezone,
	   j.enabled, j.owner,
	   CASE WHEN j.enabled THEN s.next_run_at END AS next_run_at,
	   CASE WHEN r.run_id IS NOT NULL THEN 'running'
			WHEN EXISTS (SELECT FROM meritum_cache.job_run q
						  WHERE q.job_name OPERATOR(pg_catalog.=) j.name
							AND q.status OPERATOR(pg_catalog.=) 'queued') THEN 'queued'
			ELSE 'idle' END AS state,
	   r.started_at AS running_since,
	   r.providers_done, r.providers_total,
	   l.run_id AS last_run_id, l.started_at AS last_started_at,
	   l.finished_at OPERATOR(pg_catalog.-) l.started_at AS last_duration,
	   l.status AS last_status,
	   pg_catalog.jsonb_array_length(l.errors) AS last_errors,
	   l.message AS last_message
  FROM meritum_cache.job j
  LEFT JOIN meritum_cache.job_state s
	ON s.name OPERATOR(pg_catalog.=) j.name
   AND s.schedule OPERATOR(pg_catalog.=) j.schedule
   AND s.timezone OPERATOR(pg_catalog.=) coalesce(j.timezone, s.timezone)
  LEFT JOIN LATERAL (
		SELECT * FROM meritum_cache.job_run o
		 WHERE o.job_name OPERATOR(pg_catalog.=) j.name
		   AND o.status OPERATOR(pg_catalog.=) 'running'
		 ORDER BY o.run_id LIMIT 1) r ON true
  LEFT JOIN LATERAL (
		SELECT * FROM meritum_cache.job_run e
		 WHERE e.job_name OPERATOR(pg_catalog.=) j.name
		   AND e.finished_at IS NOT NULL
		 ORDER BY e.run_id DESC LIMIT 1) l ON true
 ORDER BY j.name;

COMMENT ON VIEW meritum_cache.job_status IS
'each job at a glance: what it is, when it is due next (null: disabled, never, or not yet taken up by the worker), whether it is running, queued or idle now, how far the run that goes on has come, and how the last one that ended did; last_errors counts the providers that it passed over (errors in meritum_cache.job_run), last_duration is null for a run that could not begin; timezone is null until the worker has taken up a job that names none';

CREATE TABLE meritum_cache.role_grant (
	role pg_catalog.regrole NOT NULL,
	level text NOT NULL,
	pinned boolean NOT NULL DEFAULT false,
	CONSTRAINT role_grant_pkey PRIMARY KEY (role),
	CONSTRAINT role_grant_level_check CHECK (level IN ('reader', 'operator', 'admin')),
	CONSTRAINT role_grant_pinned_check CHECK (level = 'reader' OR NOT pinned)
);

COMMENT ON TABLE meritum_cache.role_grant IS
'the levels that meritum_grant gave to roles; pinned: the role sees nothing until it has called meritum_set_provider';

/*
 * Internal functions
 */

CREATE FUNCTION meritum_cache.builtin_metric(
	OUT metric_key text, OUT grain text, OUT breakdown boolean, OUT description text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'builtin_metric'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION meritum_cache.builtin_metric() IS
'the metrics that are compiled into the library';

CREATE FUNCTION meritum_cache.note_change() RETURNS trigger
AS 'MODULE_PATHNAME', 'note_change'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.note_change() IS
'trigger of the attached tables: notes what changed; its argument is the source name';

CREATE FUNCTION meritum_cache.raise_event() RETURNS trigger
AS 'MODULE_PATHNAME', 'raise_event'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.raise_event() IS
'trigger made by meritum_attach_event: raises an event of the providers of the rows; its arguments are the event type and the provider column';

CREATE FUNCTION meritum_cache.configuration_changed() RETURNS trigger
AS 'MODULE_PATHNAME', 'configuration_changed'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.configuration_changed() IS
'trigger of configuration tables: makes every session read them again';

CREATE FUNCTION meritum_cache.check_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'check_job'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.check_job() IS
'trigger of the job table: refuses a malformed schedule, naming the field, and a timeout that is not positive (22023)';

CREATE FUNCTION meritum_cache.check_event() RETURNS trigger
AS 'MODULE_PATHNAME', 'check_event'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.check_event() IS
'trigger of the event map: refuses a metric that does not exist (23503), except from a dump, which may bring it later';

CREATE FUNCTION meritum_cache.forget_metric() RETURNS trigger
AS 'MODULE_PATHNAME', 'forget_metric'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.forget_metric() IS
'trigger of metric: takes a metric that is deleted out of the event map';

CREATE FUNCTION meritum_cache.restore_row() RETURNS trigger
AS 'MODULE_PATHNAME', 'restore_row'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.restore_row() IS
'trigger of tables that a dump carries: a row from a dump takes the place of the one with its key';

CREATE FUNCTION meritum_cache.restore_default() RETURNS trigger
AS 'MODULE_PATHNAME', 'restore_default'
LANGUAGE C VOLATILE;

COMMENT ON FUNCTION meritum_cache.restore_default() IS
'trigger of default_row: a row from a dump removes the default row that it names';

-- Neither may run in a parallel worker, which does not know the pin.
CREATE FUNCTION meritum_cache.pinned_provider() RETURNS uuid
AS 'MODULE_PATHNAME', 'pinned_provider'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION meritum_cache.pinned_provider() IS
'the provider that the session is pinned to, null if none';

CREATE FUNCTION meritum_cache.sees_all() RETURNS boolean
AS 'MODULE_PATHNAME', 'sees_all'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION meritum_cache.sees_all() IS
'whether row security shows the caller the rows of all providers: not pinned, and granted a level that does not ask for it';

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meritum_cache.source_table
	FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed();

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meritum_cache.metric
	FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed();

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meritum_cache.event_metric
	FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed();

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meritum_cache.job
	FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed();

CREATE TRIGGER check_job
	BEFORE INSERT OR UPDATE OF schedule, timeout ON meritum_cache.job
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.check_job();

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meritum_cache.role_grant
	FOR EACH STATEMENT EXECUTE FUNCTION meritum_cache.configuration_changed();

/*
 * Row security: a pinned session sees the rows of its provider, others those
 * of all, or none if their role has to be pinned.  It is for whom the tables
 * are granted to; their owner, as whom the extension works, sees all rows.
 * The functions are called once in a query, not for each row.
 */

ALTER TABLE meritum_cache.analytics_cache ENABLE ROW LEVEL SECURITY;
ALTER TABLE meritum_cache.claim_fact ENABLE ROW LEVEL SECURITY;
ALTER TABLE meritum_cache.provider_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE meritum_cache.metric_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE meritum_cache.pending_refresh ENABLE ROW LEVEL SECURITY;
ALTER TABLE meritum_cache.job_run ENABLE ROW LEVEL SECURITY;

CREATE POLICY provider ON meritum_cache.analytics_cache FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));
CREATE POLICY provider ON meritum_cache.claim_fact FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));
CREATE POLICY provider ON meritum_cache.provider_state FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));
CREATE POLICY provider ON meritum_cache.metric_state FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));
CREATE POLICY provider ON meritum_cache.pending_refresh FOR SELECT
	USING ((SELECT meritum_cache.sees_all())
		   OR provider_id OPERATOR(pg_catalog.=) (SELECT meritum_cache.pinned_provider()));

-- Its column errors names providers.
CREATE POLICY provider ON meritum_cache.job_run FOR SELECT
	USING ((SELECT meritum_cache.sees_all()));

CREATE TRIGGER check_event
	BEFORE INSERT OR UPDATE ON meritum_cache.event_metric
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.check_event();

CREATE TRIGGER forget_metric
	AFTER DELETE ON meritum_cache.metric
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.forget_metric();

/*
 * Reading
 */

CREATE FUNCTION @extschema@.meritum_get_metrics(
	provider_id uuid, metric_keys text[], period_start date, period_end date,
	dimensions jsonb DEFAULT NULL)
RETURNS SETOF meritum_cache.analytics_cache
AS 'MODULE_PATHNAME', 'meritum_get_metrics'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION @extschema@.meritum_get_metrics(uuid, text[], date, date, jsonb) IS
'rows of meritum_cache.analytics_cache of one provider and the given metrics whose period lies within period_start to period_end; with dimensions, those whose dimensions contain it (@>), without, totals and breakdowns; in no particular order; what is pending is refreshed first, or computed where it cannot be stored; errors: 22004 null argument, 22023 unknown metric or bad period';

CREATE FUNCTION @extschema@.meritum_compute_metrics(
	provider_id uuid, metric_keys text[], period_start date, period_end date,
	filter jsonb DEFAULT '{}', as_of date DEFAULT NULL,
	OUT metric_key text, OUT value jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'meritum_compute_metrics'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 40;

COMMENT ON FUNCTION @extschema@.meritum_compute_metrics(uuid, text[], date, date, jsonb, date) IS
'figures of one provider over any range of up to 730 days, a row for each metric, computed from its claims and not stored; filter: claim_type, ba_number, location_id, hsc_code, claim_state, a value or an array each; as_of is today for snapshot metrics; errors: 22004 null argument, 22023 unknown metric or filter, bad range, filter on a metric that reads no claims, 55000 not attached';

CREATE FUNCTION @extschema@.meritum_is_stale(
	provider_id uuid, max_age_minutes integer DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'meritum_is_stale'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION @extschema@.meritum_is_stale(uuid, integer) IS
'whether a provider has no figures yet, has a change pending, has figures of another time zone than meritum_cache.timezone, or has a figure of the trailing window older than max_age_minutes (default meritum_cache.stale_after); errors: 22004 null provider, 22023 negative age';

CREATE FUNCTION @extschema@.meritum_freshness(
	provider_id uuid,
	OUT oldest_computed_at timestamptz, OUT newest_computed_at timestamptz,
	OUT pending bigint, OUT pending_since timestamptz,
	OUT refreshed_at timestamptz, OUT refresh_cause text,
	OUT snapshot_on date, OUT version bigint)
RETURNS record
AS 'MODULE_PATHNAME', 'meritum_freshness'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION @extschema@.meritum_freshness(uuid) IS
'why a provider is stale or not: ages of its figures, pending notes, last refresh and its cause, day of the snapshot figures (null: outdated by a change), version; one row, also for an unknown provider; error 22004 null provider';

CREATE FUNCTION @extschema@.meritum_verify(
	provider_id uuid, repair boolean DEFAULT false,
	OUT metric_key text, OUT period_start date, OUT period_end date,
	OUT dimensions jsonb, OUT cached jsonb, OUT computed jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'meritum_verify'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_verify(uuid, boolean) IS
'recomputes a provider''s figures from the source tables and returns those that differ from the cache, none if it is right; a row too many has computed null, a missing one cached null; rows that the application wrote under other dimensions or periods than the extension''s are left alone; with repair it corrects what it returns; errors: 22004 null argument, 25006 read-only transaction (repair), 55000 not attached';

CREATE FUNCTION @extschema@.meritum_get_stale_entries(
	provider_id uuid, max_age_minutes integer DEFAULT NULL)
RETURNS SETOF meritum_cache.analytics_cache
AS 'MODULE_PATHNAME', 'meritum_get_stale_entries'
LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;

COMMENT ON FUNCTION @extschema@.meritum_get_stale_entries(uuid, integer) IS
'rows of meritum_cache.analytics_cache of one provider computed more than max_age_minutes ago (default meritum_cache.stale_after); errors: 22004 null provider, 22023 negative age';

/*
 * Writing
 */

CREATE FUNCTION @extschema@.meritum_upsert_metric(
	provider_id uuid, metric_key text, period_start date, period_end date,
	dimensions jsonb, value jsonb)
RETURNS meritum_cache.analytics_cache
AS 'MODULE_PATHNAME', 'meritum_upsert_metric'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_upsert_metric(uuid, text, date, date, jsonb, jsonb) IS
'inserts or updates one figure, sets its computed_at and returns its row; dimensions null is the total, else a JSON object; the next refresh of a figure that the extension computes itself replaces it; errors: 22004 null argument, 22023 unknown metric, bad period or dimensions, 25006 read-only transaction';

CREATE FUNCTION @extschema@.meritum_bulk_upsert(provider_id uuid, entries jsonb)
RETURNS integer
AS 'MODULE_PATHNAME', 'meritum_bulk_upsert'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_bulk_upsert(uuid, jsonb) IS
'inserts or updates an array of {metric_key, period_start, period_end, dimensions?, value, provider_id?} and returns the number of figures written; of two entries with one key the last wins; dates are YYYY-MM-DD; a wrong entry, or one of another provider, rejects the call (22023, naming its index, from 0); other errors: 22004 null argument, 22023 no array, 25006 read-only transaction';

CREATE FUNCTION @extschema@.meritum_delete_expired_entries(provider_id uuid, older_than date)
RETURNS bigint
AS 'MODULE_PATHNAME', 'meritum_delete_expired_entries'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_delete_expired_entries(uuid, date) IS
'deletes figures of one provider whose period_end is before older_than and returns how many; errors: 22004 null argument, 25006 read-only transaction';

/*
 * Refreshing
 */

CREATE FUNCTION @extschema@.meritum_refresh_provider_metrics(
	provider_id uuid, metric_keys text[] DEFAULT NULL, as_of date DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'meritum_refresh_provider_metrics'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_refresh_provider_metrics(uuid, text[], date) IS
'recomputes the given metrics (default all) for the twelve months ending with as_of (default today) from the source tables and returns the number of entries written; errors: 22004 null provider, 22023 unknown metric or as_of that is no finite date, 25006 read-only transaction, 55000 not attached';

CREATE FUNCTION @extschema@.meritum_handle_claim_state_change(
	provider_id uuid, claim_type text, new_state text, claim_id uuid DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'meritum_handle_claim_state_change'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_handle_claim_state_change(uuid, text, text, uuid) IS
'refreshes the metrics that the event map names for a state, for the month of the claim or the running month, and returns the number of entries written; 0 for a state that is not in the map; claim_type is AHCIP or WCB, the letter case of new_state does not matter; errors: 22004 null argument, 22023 unknown claim type, 25006 read-only transaction, 42501 the claim is not of that provider and pathway, 55000 not attached';

CREATE FUNCTION @extschema@.meritum_request_refresh(provider_id uuid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'meritum_request_refresh'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_request_refresh(uuid) IS
'queues a refresh of a stale provider for the background worker; false if it is fresh or queued already; errors: 22004 null provider, 25006 read-only transaction, 55000 not attached';

CREATE PROCEDURE @extschema@.meritum_refresh_all_providers(
	batch_size integer DEFAULT NULL, as_of date DEFAULT NULL,
	INOUT providers_processed bigint DEFAULT 0,
	INOUT metrics_refreshed bigint DEFAULT 0,
	INOUT errors jsonb DEFAULT '[]')
AS 'MODULE_PATHNAME', 'meritum_refresh_all_providers'
LANGUAGE C;

COMMENT ON PROCEDURE @extschema@.meritum_refresh_all_providers(integer, date, bigint, bigint, jsonb) IS
'the nightly batch: refreshes every active provider, at most batch_size providers a transaction (default meritum_cache.batch_size), in meritum_cache.batch_workers processes; a provider that fails is recorded in errors as {providerId, sqlstate, message} and passed over; a run that was cut off is continued; returns the providers done, the entries written and the errors; errors: 22023 batch_size below 1 or as_of not finite, 25006 read-only transaction, 2D000 inside a transaction block, 42501 pinned, 55000 not attached';

CREATE PROCEDURE @extschema@.meritum_cleanup_old_entries(INOUT deleted bigint DEFAULT 0)
AS 'MODULE_PATHNAME', 'meritum_cleanup_old_entries'
LANGUAGE C;

COMMENT ON PROCEDURE @extschema@.meritum_cleanup_old_entries(bigint) IS
'deletes figures whose period ended more than meritum_cache.retention_months ago, provider by provider, committing as it goes, and returns how many; errors: 25006 read-only transaction, 2D000 inside a transaction block, 42501 pinned';

/*
 * Metrics of one's own, and events
 */

CREATE FUNCTION @extschema@.meritum_create_metric(
	metric_key text, query text, grain text DEFAULT 'monthly',
	description text DEFAULT '')
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_create_metric'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_create_metric(text, text, text, text) IS
'makes a metric of one''s own: query is a SELECT over $1 provider uuid, $2 period_start and $3 period_end date that returns rows (dimensions jsonb, value jsonb); grain monthly runs it for each month, snapshot for the running month each day; it runs with the caller''s rights and present search path, read-only; errors: 22004 null argument, 22023 wrong key, grain or query, 42804 other columns, 42501 no admin, 42710 name taken';

CREATE FUNCTION @extschema@.meritum_drop_metric(metric_key text)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_drop_metric'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_drop_metric(text) IS
'removes a metric made by meritum_create_metric with its figures and its rows in the event map; errors: 22004 null argument, 22023 built-in metric, 42501 no admin, 42704 unknown metric';

CREATE FUNCTION @extschema@.meritum_handle_event(event_type text, provider_id uuid)
RETURNS integer
AS 'MODULE_PATHNAME', 'meritum_handle_event'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_handle_event(text, uuid) IS
'marks the figures of one provider that the event map names for an event as to be recomputed, at commit or by the background worker as meritum_cache.refresh_mode says, and returns how many there are; 0 with a warning for an event that is not in the map; errors: 22004 null argument, 25006 read-only transaction';

CREATE FUNCTION @extschema@.meritum_invalidate(provider_id uuid, prefix text)
RETURNS integer
AS 'MODULE_PATHNAME', 'meritum_invalidate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_invalidate(uuid, text) IS
'marks the figures of one provider whose metric key begins with prefix (letter case matters) as to be recomputed, as meritum_handle_event does, and returns how many there are; 0 with a warning if no metric begins so; errors: 22004 null argument, 25006 read-only transaction';

CREATE FUNCTION @extschema@.meritum_attach_event(
	"table" regclass, event_type text, provider_column name)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_attach_event'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_attach_event(regclass, text, name) IS
'makes a trigger that raises an event whenever a row of a table is inserted, updated or deleted, for the provider in a column of type uuid (null: for none), and with TRUNCATE for every provider that has such figures; again for the same event replaces the trigger; errors: 22004 null argument, 42501 no admin or not the owner of the table, 42703 no such column, 42804 it is not a uuid, 42809 not a table';

CREATE FUNCTION @extschema@.meritum_detach_event("table" regclass, event_type text)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_detach_event'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_detach_event(regclass, text) IS
'removes the trigger that meritum_attach_event made; errors: 22004 null argument, 42501 no admin or not the owner of the table, 42704 the event is not attached, 42809 not a table';

/*
 * Attaching
 */

CREATE FUNCTION @extschema@.meritum_attach(
	claims regclass DEFAULT NULL, columns jsonb DEFAULT '{}',
	ahcip_claim_details regclass DEFAULT NULL,
	wcb_claim_details regclass DEFAULT NULL,
	wcb_invoice_lines regclass DEFAULT NULL,
	claim_audit_history regclass DEFAULT NULL,
	patients regclass DEFAULT NULL,
	providers regclass DEFAULT NULL,
	practice_locations regclass DEFAULT NULL,
	ai_suggestion_events regclass DEFAULT NULL,
	ai_provider_learning regclass DEFAULT NULL,
	ai_rules regclass DEFAULT NULL,
	OUT source text, OUT relation regclass, OUT action text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'meritum_attach'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 11;

COMMENT ON FUNCTION @extschema@.meritum_attach(regclass, jsonb, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass) IS
'finds the application''s tables (by their usual names on the search path where not given), creates the triggers and fills the facts; columns renames: {"claims": {"physician_id": "doctor_id"}}; returns a row for each table with what was done: attached, changed, already attached, or not found; errors: 22004 null columns, 22023 malformed columns, 42809 not a table, 42P01 no claims table, 42703 missing columns, 42804 wrong types, 42501 no admin or not the owner of a table';

CREATE FUNCTION @extschema@.meritum_detach(
	OUT source text, OUT relation regclass, OUT action text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'meritum_detach'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 11;

COMMENT ON FUNCTION @extschema@.meritum_detach() IS
'removes the triggers from the application''s tables and forgets the facts and figures; returns a row for each table that was attached, with what was removed; error 42501 no admin or not the owner of a table';

/*
 * Jobs
 */

CREATE FUNCTION @extschema@.meritum_next_run(
	schedule text, after timestamptz DEFAULT pg_catalog.now(), timezone text DEFAULT NULL)
RETURNS timestamptz
AS 'MODULE_PATHNAME', 'meritum_next_run'
LANGUAGE C STABLE PARALLEL SAFE;

COMMENT ON FUNCTION @extschema@.meritum_next_run(text, timestamptz, text) IS
'the first time strictly later than after at which a five-field cron schedule is due in a time zone (default meritum_cache.timezone); null if never; errors: 22004 null schedule or after, 22023 malformed schedule, naming the field, or unknown time zone';

CREATE FUNCTION @extschema@.meritum_schedule(
	name text, schedule text, command text, timezone text DEFAULT NULL,
	enabled boolean DEFAULT true, timeout interval DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_schedule'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_schedule(text, text, text, text, boolean, interval) IS
'creates a job or replaces the one of that name; it runs as the caller; timezone null means meritum_cache.timezone, timeout null the role''s statement_timeout; errors: 22004 null argument, 22023 malformed schedule, naming the field, unknown time zone or timeout not positive, 42501 no admin';

CREATE FUNCTION @extschema@.meritum_unschedule(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_unschedule'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_unschedule(text) IS
'removes a job; a run that has begun goes on; errors: 22004 null name, 42501 no admin, 42704 unknown job';

CREATE FUNCTION @extschema@.meritum_run_job(name text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'meritum_run_job'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_run_job(text) IS
'queues a run of a job, enabled or not, and returns its run_id in meritum_cache.job_run; it begins once the caller has committed and no other run of the job goes on; errors: 22004 null name, 42704 unknown job, 55000 no background worker';

/*
 * Roles
 */

CREATE FUNCTION @extschema@.meritum_grant(
	role regrole, level text, pinned boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_grant'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_grant(regrole, text, boolean) IS
'gives a role the level reader, operator or admin, each with the rights of the one before, in place of the level it had; pinned (reader only): it sees nothing until it has called meritum_set_provider; errors: 22004 null argument, 22023 unknown level, pinned without reader, owner of the extension, 42501 no admin, 42704 unknown role';

CREATE FUNCTION @extschema@.meritum_revoke(role regrole)
RETURNS boolean
AS 'MODULE_PATHNAME', 'meritum_revoke'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_revoke(regrole) IS
'takes all rights on the extension''s objects from a role; false if it had no level; errors: 22004 null argument, 22023 owner of the extension, 42501 no admin, 42704 unknown role';

CREATE FUNCTION @extschema@.meritum_set_provider(
	provider_id uuid, is_local boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'meritum_set_provider'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.meritum_set_provider(uuid, boolean) IS
'pins the session, or with is_local the transaction, to one provider: functions called for another fail with 42501, tables show that provider''s rows only; null unpins; errors: 22004 null is_local, 42501 the role is granted with pinned and the transaction is pinned to another provider';

/*
 * Data
 */

INSERT INTO meritum_cache.metric (metric_key, grain, breakdown, description)
SELECT b.metric_key, b.grain, b.breakdown, b.description
  FROM meritum_cache.builtin_metric() b;

INSERT INTO meritum_cache.event_metric (event_type, metric_key) VALUES
	('paid', 'revenue_monthly'), ('paid', 'claims_paid'), ('paid', 'avg_fee_per_claim'),
	('paid', 'revenue_by_ba'), ('paid', 'revenue_by_location'), ('paid', 'top_hsc_codes'),
	('paid', 'pending_pipeline'),
	('rejected', 'rejection_rate_monthly'), ('rejected', 'rejection_by_code'),
	('rejected', 'rejection_by_hsc'), ('rejected', 'claims_rejected'),
	('submitted', 'claims_submitted'), ('submitted', 'pending_pipeline'),
	('adjusted', 'claims_adjusted'), ('adjusted', 'rejection_resolution_funnel');

INSERT INTO meritum_cache.job (name, schedule, command, owner) VALUES
	('nightly_refresh', '0 2 * * *',
	 'CALL @extschema@.meritum_refresh_all_providers()',
	 CURRENT_USER::pg_catalog.regrole),
	('cleanup', '30 3 * * *',
	 'CALL @extschema@.meritum_cleanup_old_entries()',
	 CURRENT_USER::pg_catalog.regrole);

INSERT INTO meritum_cache.default_row (relation, key, metric_key)
SELECT 'job', j.name, '' FROM meritum_cache.job j
UNION ALL
SELECT 'event_metric', e.event_type, e.metric_key FROM meritum_cache.event_metric e;

/*
 * Dump and restore
 *
 * The rows of "Data" are there again when a dump is restored.  Dumped rows take
 * their place, and those that were removed are removed again, by what the dump
 * carries of default_row.  A row that names a role or a table which is no more
 * is not dumped: by its number it might come to name another.  The triggers
 * fire in a session of replication too.
 */

CREATE TRIGGER restore_default
	BEFORE INSERT ON meritum_cache.default_row
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_default();
CREATE TRIGGER restore_row
	BEFORE INSERT ON meritum_cache.event_metric
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_row();
CREATE TRIGGER restore_row
	BEFORE INSERT ON meritum_cache.job
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_row();
CREATE TRIGGER restore_row
	BEFORE INSERT ON meritum_cache.metric
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_row();
CREATE TRIGGER restore_row
	BEFORE INSERT ON meritum_cache.role_grant
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_row();
CREATE TRIGGER restore_row
	BEFORE INSERT ON meritum_cache.source_table
	FOR EACH ROW EXECUTE FUNCTION meritum_cache.restore_row();

ALTER TABLE meritum_cache.default_row ENABLE ALWAYS TRIGGER restore_default;
ALTER TABLE meritum_cache.event_metric ENABLE ALWAYS TRIGGER restore_row;
ALTER TABLE meritum_cache.job ENABLE ALWAYS TRIGGER restore_row;
ALTER TABLE meritum_cache.metric ENABLE ALWAYS TRIGGER restore_row;
ALTER TABLE meritum_cache.role_grant ENABLE ALWAYS TRIGGER restore_row;
ALTER TABLE meritum_cache.source_table ENABLE ALWAYS TRIGGER restore_row;
ALTER TABLE meritum_cache.source_table ENABLE ALWAYS TRIGGER configuration_changed;

SELECT pg_catalog.pg_extension_config_dump('meritum_cache.event_metric', '');
SELECT pg_catalog.pg_extension_config_dump('meritum_cache.job',
	'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = job.owner::pg_catalog.oid)');
SELECT pg_catalog.pg_extension_config_dump('meritum_cache.metric',
	'WHERE query IS NOT NULL'
	' AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = metric.owner::pg_catalog.oid)');
SELECT pg_catalog.pg_extension_config_dump('meritum_cache.source_table',
	'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = source_table.relation::pg_catalog.oid)');
SELECT pg_catalog.pg_extension_config_dump('meritum_cache.default_row',
	'WHERE NOT EXISTS (SELECT FROM meritum_cache.job j'
	' WHERE default_row.relation = ''job'' AND j.name = default_row.key)'
	' AND NOT EXISTS (SELECT FROM meritum_cache.event_metric e'
	' WHERE default_row.relation = ''event_metric'' AND e.event_type = default_row.key'
	' AND e.metric_key = default_row.metric_key)');
SELECT pg_catalog.pg_extension_config_dump('meritum_cache.role_grant',
	'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = role_grant.role::pg_catalog.oid)');

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

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA meritum_cache FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_get_metrics(uuid, text[], date, date, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_compute_metrics(uuid, text[], date, date, jsonb, date) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_is_stale(uuid, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_freshness(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_verify(uuid, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_get_stale_entries(uuid, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_upsert_metric(uuid, text, date, date, jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_bulk_upsert(uuid, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_delete_expired_entries(uuid, date) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_refresh_provider_metrics(uuid, text[], date) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_handle_claim_state_change(uuid, text, text, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_request_refresh(uuid) FROM PUBLIC;
REVOKE ALL ON PROCEDURE @extschema@.meritum_refresh_all_providers(integer, date, bigint, bigint, jsonb) FROM PUBLIC;
REVOKE ALL ON PROCEDURE @extschema@.meritum_cleanup_old_entries(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_attach(regclass, jsonb, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass, regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_detach() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_next_run(text, timestamptz, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_schedule(text, text, text, text, boolean, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_unschedule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_run_job(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_grant(regrole, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_revoke(regrole) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_set_provider(uuid, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_create_metric(text, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_drop_metric(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_handle_event(text, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_invalidate(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_attach_event(regclass, text, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.meritum_detach_event(regclass, text) FROM PUBLIC;
