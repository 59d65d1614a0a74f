--
-- jobs and their status, as far as SQL shows them without a worker
--
SET client_min_messages = warning;
CREATE EXTENSION meritum_cache;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
CREATE ROLE regress_meritum_clerk;

-- a mistake is refused by the function and by the table, with field and reason
SELECT meritum_schedule('typo', '0 25 * * *', 'SELECT 1');
SELECT meritum_schedule('typo', '0 2 * *', 'SELECT 1');
SELECT meritum_schedule('typo', '@dayly', 'SELECT 1');
SELECT meritum_schedule('typo', '0 2 * * *', 'SELECT 1', timezone => 'America/Edmundton');
SELECT meritum_schedule('typo', '0 2 * * *', 'SELECT 1', timeout => '0');
INSERT INTO meritum_cache.job (name, schedule, command, owner)
VALUES ('typo', '0 2 * * mon-sat,sunny', 'SELECT 1', 'regress_meritum_clerk');
INSERT INTO meritum_cache.job (name, schedule, command, owner, timeout)
VALUES ('typo', '0 2 * * *', 'SELECT 1', 'regress_meritum_clerk', '-1 hour');
UPDATE meritum_cache.job SET schedule = '0 2 30-31/3 feb-jan *';
UPDATE meritum_cache.job SET timeout = '-1 ms';
SELECT meritum_cache.check_job();
CREATE TABLE elsewhere (schedule text, timeout interval);
CREATE TRIGGER late AFTER INSERT ON elsewhere FOR EACH ROW EXECUTE FUNCTION meritum_cache.check_job();
INSERT INTO elsewhere VALUES ('* * * * *');
DROP TABLE elsewhere;
-- what does not touch the schedule is not looked at
UPDATE meritum_cache.job SET enabled = true WHERE name = 'cleanup';
SELECT name, schedule, timeout FROM meritum_cache.job ORDER BY name;

-- replacing a job by its name keeps one
SELECT meritum_schedule('report', '0 6 * * 1', 'SELECT 1');
SELECT meritum_schedule('report', '30 6 * * mon', 'SELECT 2', 'Asia/Kathmandu', false, '2 hours');
SELECT name, schedule, command, timezone, enabled, timeout, owner = current_user::regrole AS mine
  FROM meritum_cache.job WHERE name = 'report';
SELECT meritum_unschedule('report');
SELECT meritum_unschedule('report');

-- status: what the worker has noted down, told job by job
DELETE FROM meritum_cache.job;
INSERT INTO meritum_cache.job (name, schedule, timezone, command, enabled, owner) VALUES
	('aborted', '@daily', NULL, '', true, 'regress_meritum_clerk'),
	('changed', '@daily', NULL, '', true, 'regress_meritum_clerk'),
	('disabled', '@daily', 'UTC', '', false, 'regress_meritum_clerk'),
	('moved', '@daily', 'Asia/Kathmandu', '', true, 'regress_meritum_clerk'),
	('never', '0 0 30 2 *', 'UTC', '', true, 'regress_meritum_clerk'),
	('new', '@daily', NULL, '', true, 'regress_meritum_clerk'),
	('queued', '@daily', NULL, '', true, 'regress_meritum_clerk'),
	('refused', '@daily', NULL, '', true, 'regress_meritum_clerk'),
	('running', '@daily', NULL, '', true, 'regress_meritum_clerk');
INSERT INTO meritum_cache.job_state (name, schedule, timezone, next_run_at)
SELECT name, schedule, 'UTC', '2026-01-03' FROM meritum_cache.job WHERE name <> 'new';
UPDATE meritum_cache.job_state SET schedule = '@hourly' WHERE name = 'changed';
UPDATE meritum_cache.job_state SET next_run_at = NULL WHERE name = 'never';
INSERT INTO meritum_cache.job_run (job_name, queued_at, started_at, finished_at, status, message,
								   providers_done, providers_total, errors)
SELECT name, '2026-01-01', '2026-01-01 00:00:01', '2026-01-01 00:01:31', 'succeeded', NULL, 9, 9, '[{}, {}]'
  FROM meritum_cache.job WHERE name NOT IN ('new', 'refused');
INSERT INTO meritum_cache.job_run (job_name, queued_at, started_at, finished_at, status, message,
								   providers_done, providers_total, errors)
VALUES ('aborted', '2026-01-02', '2026-01-02 00:00:01', '2026-01-02 00:00:03', 'aborted', 'cut off', 4, 9, NULL),
	   ('refused', '2026-01-02', NULL, '2026-01-02 00:00:03', 'failed', 'the owner of the job does not exist', NULL, NULL, NULL),
	   ('queued', '2026-01-02', NULL, NULL, 'queued', NULL, NULL, NULL, NULL),
	   ('running', '2026-01-02', '2026-01-02 00:00:05', NULL, 'running', NULL, 3, 9, '[]'),
	   ('running', '2026-01-02', NULL, NULL, 'queued', NULL, NULL, NULL, NULL),
	   ('gone', '2026-01-02', NULL, NULL, 'queued', NULL, NULL, NULL, NULL);
SELECT name, schedule, timezone, enabled, owner, next_run_at, state, running_since,
	   providers_done AS done, providers_total AS total
  FROM meritum_cache.job_status;
SELECT name, last_started_at, last_duration, last_status, last_errors, last_message
  FROM meritum_cache.job_status;

DROP EXTENSION meritum_cache;
DROP ROLE regress_meritum_clerk;
