-- Cron arithmetic against PostgreSQL's own time zone conversion: ten years of
-- a table of schedules in four zones, and random schedules.
--
-- The oracle shares nothing with schedule.c.  It lists the wall-clock minutes
-- that a schedule names, from sets that are written down beside the text, and
-- asks AT TIME ZONE when the clocks of the zone first reach or pass each.
-- Then one statement checks from every due time, from halfway to the next, and
-- from the microsecond before it, that meritum_next_run gives that next one: so
-- the times are strictly increasing, each is named by the schedule, and none is
-- left out.
--
-- Environment:
--   SEED   of the random schedules (default: from the clock; always printed)
\set ECHO none
\set QUIET 1
\pset format unaligned
\pset tuples_only on
\pset pager off
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
CREATE EXTENSION meritum_cache;
\set seed ''
\getenv seed SEED
SELECT coalesce(nullif(:'seed', ''), (extract(epoch FROM clock_timestamp())::bigint % 1000000)::text) AS seed
\gset

-- a schedule as text, and the same as sets of numbers; a day counts if both
-- sets have it, or with either_day, if one does
CREATE TABLE schedule (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	text text NOT NULL,
	minutes int[] NOT NULL,
	hours int[] NOT NULL,
	days int[] NOT NULL,
	months int[] NOT NULL,
	weekdays int[] NOT NULL,
	either_day boolean NOT NULL DEFAULT false);

-- the schedules under test, each in one zone for some years
CREATE TABLE run (
	id int REFERENCES schedule,
	zone text,
	first date,
	last date);

CREATE FUNCTION series(int, int, int DEFAULT 1) RETURNS int[]
LANGUAGE sql IMMUTABLE AS 'SELECT array_agg(n) FROM generate_series($1, $2, $3) AS n';

-- The first instant at which the clocks of a zone show a wall-clock minute or
-- a later one.
CREATE FUNCTION reached(wall timestamp, zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
	shown constant timestamptz := wall AT TIME ZONE zone;
	shift interval;
	t timestamptz;
BEGIN
	IF shown AT TIME ZONE zone = wall THEN
		-- shown twice?  The first time is earlier by half an hour or an hour.
		FOREACH shift IN ARRAY '{1 hour, 30 min}'::interval[] LOOP
			IF (shown - shift) AT TIME ZONE zone = wall THEN
				RETURN shown - shift;
			END IF;
		END LOOP;
		RETURN shown;
	END IF;
	-- never shown: go through the minutes around it
	FOR t IN SELECT generate_series(shown - interval '3 hours', shown + interval '3 hours', interval '1 min') LOOP
		IF t AT TIME ZONE zone > wall THEN
			RETURN t;
		END IF;
	END LOOP;
	RAISE 'no instant for % in %', wall, zone;
END $$;

-- All times at which the runs under test are due.  A few wall-clock minutes
-- before and after the range make sure of its ends.
CREATE FUNCTION due(v_run run) RETURNS SETOF timestamptz
LANGUAGE sql STABLE AS $$
	SELECT DISTINCT CASE WHEN plain THEN shown ELSE reached(wall, v_run.zone) END
	  FROM schedule s,
		   generate_series((v_run.first - 1)::timestamp, v_run.last + 1, '1 day') AS day,
		   unnest(s.hours) AS hour, unnest(s.minutes) AS minute,
		   LATERAL (SELECT day + make_interval(hours => hour, mins => minute)) AS w (wall),
		   LATERAL (SELECT wall AT TIME ZONE v_run.zone) AS z (shown),
		   -- far from any change of the clocks
		   LATERAL (SELECT (shown - interval '4 hours') AT TIME ZONE v_run.zone = wall - interval '4 hours'
					   AND (shown + interval '4 hours') AT TIME ZONE v_run.zone = wall + interval '4 hours') AS p (plain)
	 WHERE s.id = v_run.id
	   AND extract(month FROM day) = ANY (s.months)
	   AND CASE WHEN s.either_day
				THEN extract(day FROM day) = ANY (s.days) OR extract(dow FROM day) = ANY (s.weekdays)
				ELSE extract(day FROM day) = ANY (s.days) AND extract(dow FROM day) = ANY (s.weekdays) END
$$;

-- What meritum_next_run answers otherwise than the oracle.
CREATE FUNCTION wrong(v_run run)
RETURNS TABLE (schedule text, zone text, after timestamptz, expected timestamptz, actual timestamptz)
LANGUAGE sql STABLE AS $$
	WITH d AS MATERIALIZED (
		SELECT t, lead(t) OVER (ORDER BY t) AS next FROM due(v_run) AS t
	), question AS (
		SELECT t AS after, next FROM d WHERE next IS NOT NULL
		UNION ALL
		SELECT t + (next - t) / 2, next FROM d WHERE next IS NOT NULL
		UNION ALL
		SELECT next - interval '1 microsecond', next FROM d WHERE next IS NOT NULL
	)
	SELECT s.text, v_run.zone, after, next, actual
	  FROM question, schedule s, meritum_next_run(s.text, after, v_run.zone) AS actual
	 WHERE s.id = v_run.id AND actual IS DISTINCT FROM next
	 ORDER BY 3
$$;

SELECT plan(8);

-- The zones do what they are chosen for.
SELECT is((SELECT string_agg(to_char(reached(wall::timestamp, zone), 'YYYY-MM-DD HH24:MI'), ', ' ORDER BY n)
			 FROM (VALUES (1, '2025-03-09 02:30', 'America/Edmonton'),
						  (2, '2025-11-02 01:30', 'America/Edmonton'),
						  (3, '2025-10-05 02:15', 'Australia/Lord_Howe'),
						  (4, '2025-04-06 01:45', 'Australia/Lord_Howe'),
						  (5, '2025-04-06 01:45', 'Asia/Kathmandu'),
						  (6, '2025-04-06 01:45', 'UTC')) AS v (n, wall, zone)),
	'2025-03-09 09:00, 2025-11-02 07:30, 2025-10-04 15:30, 2025-04-05 14:45, 2025-04-05 20:00, 2025-04-06 01:45',
	'the oracle knows gaps and repetitions: an hour, half an hour, none');

-- Ten years, four zones
INSERT INTO schedule (text, minutes, hours, days, months, weekdays, either_day) VALUES
	('0 2 * * *', '{0}', '{2}', series(1, 31), series(1, 12), series(0, 6), false),
	('30 2 * * *', '{30}', '{2}', series(1, 31), series(1, 12), series(0, 6), false),
	('15,45 1-3 * * *', '{15,45}', '{1,2,3}', series(1, 31), series(1, 12), series(0, 6), false),
	('59 23 * * *', '{59}', '{23}', series(1, 31), series(1, 12), series(0, 6), false),
	('@daily', '{0}', '{0}', series(1, 31), series(1, 12), series(0, 6), false),
	('@hourly', '{0}', series(0, 23), series(1, 31), series(1, 12), series(0, 6), false),
	('@weekly', '{0}', '{0}', series(1, 31), series(1, 12), '{0}', false),
	('@monthly', '{0}', '{0}', '{1}', series(1, 12), series(0, 6), false),
	('@yearly', '{0}', '{0}', '{1}', '{1}', series(0, 6), false),
	('0 */6 * * *', '{0}', '{0,6,12,18}', series(1, 31), series(1, 12), series(0, 6), false),
	('*/20 0-4 * * *', '{0,20,40}', '{0,1,2,3,4}', series(1, 31), series(1, 12), series(0, 6), false),
	('30 3 * * mon-fri', '{30}', '{3}', series(1, 31), series(1, 12), series(1, 5), false),
	('5 2 * * 7', '{5}', '{2}', series(1, 31), series(1, 12), '{0}', false),
	('0 2 * * fri-sun', '{0}', '{2}', series(1, 31), series(1, 12), '{0,5,6}', false),
	('10-40/15 2 1-7 mar,Apr,OCT,nov sun', '{10,25,40}', '{2}', series(1, 7), '{3,4,10,11}', '{0}', true),
	('0 1 29 2 *', '{0}', '{1}', '{29}', '{2}', series(0, 6), false),
	('0 12 31 * *', '{0}', '{12}', '{31}', series(1, 12), series(0, 6), false),
	('0 0 13 * 5', '{0}', '{0}', '{13}', series(1, 12), '{5}', true),
	('0 0 */2 * mon', '{0}', '{0}', series(1, 31, 2), series(1, 12), '{1}', false);
INSERT INTO run
SELECT id, zone, '2021-01-01', '2030-12-31'
  FROM schedule, unnest(ARRAY['America/Edmonton', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'UTC']) AS zone;
SELECT is((SELECT count(*) FROM due((SELECT r FROM run r JOIN schedule USING (id)
									  WHERE text = '0 2 * * *' AND zone = 'America/Edmonton'))),
	3654::bigint, 'ten years of a daily schedule, and a day at either end');
SELECT is_empty(format('SELECT w.* FROM run r, wrong(r) AS w WHERE r.zone = %L LIMIT 20', z),
				'2021 to 2030: ' || z)
  FROM unnest(ARRAY['America/Edmonton', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'UTC']) AS z;

-- Every minute, on the days around each change of the clocks
TRUNCATE run, schedule RESTART IDENTITY;
INSERT INTO schedule (text, minutes, hours, days, months, weekdays)
VALUES ('* * * * *', series(0, 59), series(0, 23), series(1, 31), series(1, 12), series(0, 6));
INSERT INTO run
SELECT 1, zone, day::date, day::date
  FROM unnest(ARRAY['America/Edmonton', 'Australia/Lord_Howe', 'Europe/Dublin']) AS zone,
	   generate_series('2021-01-01'::timestamp, '2030-12-31', '1 day') AS day
 WHERE (day AT TIME ZONE zone) + interval '24 hours' <> (day + interval '1 day') AT TIME ZONE zone;
SELECT is_empty($$SELECT w.* FROM run r, wrong(r) AS w LIMIT 20$$,
	'every minute around ' || count(*) || ' changes of the clocks') FROM run;

-- Random schedules, each in some zone and a random year
CREATE FUNCTION chance(float) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT random() < $1';
CREATE FUNCTION number(int, int) RETURNS int LANGUAGE sql VOLATILE AS
'SELECT $1 + floor(random() * ($2 - $1 + 1))::int';

-- A random field: its text and what it means.
CREATE FUNCTION field(low int, high int, names text[], OUT text text, OUT set int[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	a int;
	b int;
	step int;
	member text;
BEGIN
	IF chance(0.4) THEN
		text := '*';
		set := series(low, high);
		IF chance(0.4) THEN
			step := number(1, high - low + 1);
			text := '*/' || step;
			set := series(low, high, step);
		END IF;
		RETURN;
	END IF;
	FOR i IN 1 .. number(1, 3) LOOP
		a := number(low, high);
		b := number(a, high);
		IF chance(0.5) THEN
			member := CASE WHEN names IS NOT NULL AND chance(0.5) THEN names[a - low + 1]
						   ELSE a::text END;
			set := set || a;
		ELSE
			member := CASE WHEN names IS NOT NULL AND chance(0.5)
						   THEN names[a - low + 1] || '-' || upper(names[b - low + 1])
						   ELSE a || '-' || b END;
			step := number(1, b - a + 1);
			IF chance(0.5) THEN
				member := member || '/' || step;
				set := set || series(a, b, step);
			ELSE
				set := set || series(a, b);
			END IF;
		END IF;
		text := concat_ws(',', text, member);
	END LOOP;
	set := ARRAY(SELECT DISTINCT unnest(set));
END $$;

SELECT diag('SEED=' || :'seed');
SELECT setseed(:'seed'::bigint % 1000000 / 1000000.0) \g /dev/null
TRUNCATE run, schedule RESTART IDENTITY;
DO $$
DECLARE
	minute record;
	hour record;
	day record;
	month record;
	weekday record;
	zones constant text[] := '{America/Edmonton, Australia/Lord_Howe, Asia/Kathmandu, UTC, Europe/Dublin, America/St_Johns}';
	year int;
	v_id int;
BEGIN
	FOR i IN 1 .. 120 LOOP
		minute := field(0, 59, NULL);
		hour := field(0, 23, NULL);
		day := field(1, 31, NULL);
		month := field(1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
		weekday := field(0, 6, '{sun,mon,tue,wed,thu,fri,sat}');
		CONTINUE WHEN cardinality(minute.set) * cardinality(hour.set) > 200;
		INSERT INTO schedule (text, minutes, hours, days, months, weekdays, either_day)
		VALUES (concat_ws(' ', minute.text, hour.text, day.text, month.text, weekday.text),
				minute.set, hour.set, day.set, month.set, weekday.set,
				day.text NOT LIKE '*%' AND weekday.text NOT LIKE '*%')
		RETURNING id INTO v_id;
		year := number(2021, 2030);
		INSERT INTO run VALUES (v_id, zones[number(1, 6)], make_date(year, 1, 1), make_date(year, 12, 31));
	END LOOP;
END $$;
SELECT is_empty($$SELECT w.* FROM run r, wrong(r) AS w LIMIT 20$$, 'random schedules');

SELECT * FROM finish();
