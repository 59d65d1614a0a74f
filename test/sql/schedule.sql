--
-- meritum_next_run: cron schedules, without the worker
--
SET client_min_messages = warning;
CREATE EXTENSION meritum_cache;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';

-- the first n times that a schedule is due
CREATE FUNCTION pg_temp.runs(schedule text, after timestamptz, zone text, n int DEFAULT 4)
RETURNS TABLE (run timestamptz, wall text) LANGUAGE plpgsql AS $$
BEGIN
	run := after;
	FOR i IN 1 .. n LOOP
		run := meritum_next_run(schedule, run, zone);
		wall := to_char(run AT TIME ZONE zone, 'Dy YYYY-MM-DD HH24:MI');
		RETURN NEXT;
	END LOOP;
END $$;

-- what is wrong with a schedule
CREATE FUNCTION pg_temp.fault(schedule text, zone text DEFAULT 'UTC')
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM meritum_next_run(schedule, '2026-01-01', zone);
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''));
END $$;

-- fields: values, lists, ranges, steps, names
SELECT * FROM pg_temp.runs('* * * * *', '2026-01-01 00:00', 'UTC');
SELECT * FROM pg_temp.runs('0 2 * * *', '2026-01-01 02:00', 'UTC', 2);
SELECT * FROM pg_temp.runs('5,10-12 6 * * *', '2026-01-01', 'UTC', 5);
SELECT * FROM pg_temp.runs('*/20 */6 * * *', '2026-01-01 00:30', 'UTC');
SELECT * FROM pg_temp.runs('10-40/15 0 * * *', '2026-01-01', 'UTC', 3);
SELECT * FROM pg_temp.runs('0 0 1 jan,JUL *', '2026-01-01', 'UTC', 3);
SELECT * FROM pg_temp.runs('0 9 * * mon-fri', '2026-01-02 12:00', 'UTC', 2);
SELECT * FROM pg_temp.runs('0 9 * * fri-sun', '2026-01-01', 'UTC', 4);

-- 7 is Sunday too
SELECT a = b AS same, a
  FROM (SELECT meritum_next_run('0 0 * * 7', '2026-01-01', 'UTC'),
			   meritum_next_run('0 0 * * 0', '2026-01-01', 'UTC')) AS t (a, b);

-- both day fields restricted: either will do; one of them *: the other decides
SELECT * FROM pg_temp.runs('0 0 13 * 5', '2026-02-01', 'UTC', 5);
SELECT * FROM pg_temp.runs('0 0 13 * *', '2026-02-01', 'UTC', 2);
SELECT * FROM pg_temp.runs('0 0 */2 * mon', '2026-02-01', 'UTC', 3);

-- blanks and letter case do not matter
SELECT meritum_next_run(E'  0\t2  * *   SUN ', '2026-01-01', 'UTC');

-- shorthands
SELECT s, meritum_next_run(s, '2026-03-04 05:06', 'UTC')
  FROM unnest(ARRAY['@yearly', '@annually', '@monthly', '@weekly', '@daily',
					'@midnight', '@hourly', '@Daily']) AS s;

-- strictly later, to the second
SELECT t, meritum_next_run('30 * * * *', t, 'UTC')
  FROM unnest(ARRAY['2026-01-01 00:29:59.999999', '2026-01-01 00:30:00',
					'2026-01-01 00:30:00.000001']::timestamptz[]) AS t;

-- rare days and days that never come
SELECT meritum_next_run('0 0 29 2 *', '2026-01-01', 'UTC');
SELECT meritum_next_run('0 0 29 2 *', '2096-03-01', 'UTC');
SELECT meritum_next_run('0 0 31 4,6,9,11 *', '2026-01-01', 'UTC') IS NULL AS never;
SELECT meritum_next_run('0 0 30 2 *', '2026-01-01', 'UTC') IS NULL AS never;
SELECT meritum_next_run('0 0 * * *', 'infinity', 'UTC') IS NULL AS never;
SELECT meritum_next_run('0 0 * * *', '294276-12-31 23:59', 'UTC') IS NULL AS never;

-- America/Edmonton: on 9 March 2025 the clocks skip from 02:00 to 03:00
SELECT * FROM pg_temp.runs('30 2 * * *', '2025-03-08 00:00-07', 'America/Edmonton', 3);
SELECT * FROM pg_temp.runs('0 2 * * *', '2025-03-08 00:00-07', 'America/Edmonton', 3);
SELECT * FROM pg_temp.runs('*/30 * * * *', '2025-03-09 01:15-07', 'America/Edmonton', 4);
-- and on 2 November they show 01:00 to 02:00 twice
SELECT * FROM pg_temp.runs('30 1 * * *', '2025-11-01 12:00-06', 'America/Edmonton', 2);
SELECT * FROM pg_temp.runs('0 2 * * *', '2025-11-01 12:00-06', 'America/Edmonton', 2);
SELECT * FROM pg_temp.runs('*/30 * * * *', '2025-11-02 00:45-06', 'America/Edmonton', 4);
SELECT * FROM pg_temp.runs('30 1 * * *', '2025-11-02 01:10-07', 'America/Edmonton', 1);

-- Australia/Lord_Howe: half an hour, at 02:00 in October and in April
SELECT * FROM pg_temp.runs('15 2 * * *', '2025-10-04 00:00+1030', 'Australia/Lord_Howe', 3);
SELECT * FROM pg_temp.runs('45 1 * * *', '2025-04-05 00:00+11', 'Australia/Lord_Howe', 3);

-- Asia/Kathmandu: 5:45 ahead; Pacific/Apia had no 30 December 2011
SELECT * FROM pg_temp.runs('0 2 * * *', '2026-01-01', 'Asia/Kathmandu', 2);
SELECT * FROM pg_temp.runs('0 12 * * *', '2011-12-29 12:00-10', 'Pacific/Apia', 2);

-- against every minute of the weeks in which clocks change, told off one by one
CREATE TEMP TABLE week AS
SELECT zone, first::timestamptz, first::timestamptz + interval '1 week' AS last
  FROM unnest(ARRAY['America/Edmonton', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Europe/Dublin']) AS zone,
	   unnest(ARRAY['2025-03-06', '2025-03-27', '2025-04-03', '2025-10-02', '2025-10-23', '2025-10-30']) AS first;
WITH walls AS (
	SELECT zone, first, t, t AT TIME ZONE zone AS wall,
		   max(t AT TIME ZONE zone) OVER (PARTITION BY zone, first ORDER BY t
			   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
	  FROM week, generate_series(first, last, '1 min') AS t
), expected AS (
	SELECT zone, t FROM walls
	 WHERE wall > reached
	   AND EXISTS (SELECT FROM generate_series(reached + '1 min', wall, '1 min') AS w
					WHERE date_part('minute', w) IN (7, 37)
					  AND date_part('hour', w) IN (1, 2, 3))
), actual AS (
	SELECT zone, run AS t
	  FROM week, pg_temp.runs('7,37 1-3 * * *', first, zone, 45)
	 WHERE run <= last
)
SELECT (SELECT count(*) FROM expected) AS expected,
	   (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE actual) AS d) AS missing,
	   (SELECT count(*) FROM (TABLE actual EXCEPT ALL TABLE expected) AS d) AS extra;

-- errors name the field and the reason
SELECT s, pg_temp.fault(s)
  FROM unnest(ARRAY['60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *',
					'* * * 13 *', '* * * * 8', '* * * foo *', '* * * * monday',
					'jan * * * *', '5-1 * * * *', '*/0 * * * *', '*/61 * * * *',
					'5/10 * * * *', '1,,2 * * * *', '1- * * * *', '1-2-3 * * * *',
					'99999 * * * *', '-1 * * * *', '*5 * * * *', '1.5 * * * *',
					'* * * *', '* * * * * *', '', '@reboot', '@daily x', '@']) AS s;
SELECT pg_temp.fault('* * * * *', 'Mars/Olympus');
SELECT pg_temp.fault(NULL);
SELECT meritum_next_run('* * * * *', NULL, 'UTC');

-- the default zone is not the session's
SELECT meritum_next_run('0 2 * * *', '2026-01-01') AS in_utc \gset
SET timezone = 'Asia/Kathmandu';
SELECT meritum_next_run('0 2 * * *', '2026-01-01 00:00+00') = :'in_utc' AS same;

DROP EXTENSION meritum_cache;
