--
-- levels of roles: granting, replacing and revoking them, and what they mean
-- besides the rights on objects
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/support/begin.sql'
\i :begin
CREATE ROLE regress_meritum_reader;
CREATE ROLE regress_meritum_operator;
CREATE ROLE regress_meritum_admin;
CREATE ROLE "regress_meritum ""odd"" Name";
CREATE ROLE regress_meritum_member IN ROLE regress_meritum_admin;
CREATE ROLE regress_meritum_aloof NOINHERIT IN ROLE regress_meritum_admin;
GRANT USAGE ON SCHEMA shop, public, helper TO PUBLIC;

-- whether a role may execute or select anything, and its level
CREATE VIEW helper.held AS
SELECT r.rolname, count(*) FILTER (WHERE d.classid = 'pg_proc'::regclass AND has_function_privilege(r.oid, d.objid, 'EXECUTE')) > 0 AS functions,
       count(*) FILTER (WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v') AND has_table_privilege(r.oid, c.oid, 'SELECT')) > 0 AS relations,
       has_schema_privilege(r.oid, 'meritum_cache', 'USAGE') AS schema,
       (SELECT level || CASE WHEN pinned THEN ' pinned' ELSE '' END FROM meritum_cache.role_grant WHERE role = r.oid) AS level
  FROM pg_roles r, pg_depend d LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
 WHERE r.rolname LIKE 'regress\_meritum%' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meritum_cache')
 GROUP BY r.oid, r.rolname;

SELECT meritum_grant('regress_meritum_reader', 'reader');
SELECT meritum_grant('regress_meritum_operator', 'operator');
SELECT meritum_grant('regress_meritum_admin', 'admin');
SELECT meritum_grant('"regress_meritum ""odd"" Name"', 'reader', pinned => true);
SELECT * FROM helper.held ORDER BY rolname COLLATE "C";
-- a higher level includes the lower: no object is a reader's and not an admin's
SELECT a.oid::regprocedure FROM pg_proc a
 WHERE has_function_privilege('regress_meritum_reader', oid, 'EXECUTE') AND NOT has_function_privilege('regress_meritum_operator', oid, 'EXECUTE')
    OR has_function_privilege('regress_meritum_operator', oid, 'EXECUTE') AND NOT has_function_privilege('regress_meritum_admin', oid, 'EXECUTE');
-- nothing may be passed on
SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(proacl) a WHERE a.is_grantable AND a.grantee <> p.proowner AND proname LIKE 'meritum%';

-- of another level: replaces, down as well
SELECT meritum_grant('regress_meritum_reader', 'operator');
SELECT has_function_privilege('regress_meritum_reader', 'meritum_verify(uuid, boolean)', 'EXECUTE') AS verify;
SELECT meritum_grant('regress_meritum_reader', 'reader');
SELECT has_function_privilege('regress_meritum_reader', 'meritum_verify(uuid, boolean)', 'EXECUTE') AS verify,
       has_table_privilege('regress_meritum_reader', 'meritum_cache.job', 'SELECT') AS job;
-- revoked: nothing is left; again: false
SELECT meritum_revoke('regress_meritum_reader'), meritum_revoke('"regress_meritum ""odd"" Name"');
SELECT meritum_revoke('regress_meritum_reader');
SELECT * FROM helper.held ORDER BY rolname COLLATE "C";
SELECT objid FROM pg_shdepend WHERE refobjid = 'regress_meritum_reader'::regrole;

-- arguments
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_reader', 'king')$$);
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_reader', 'Reader')$$);
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_reader', 'admin', true)$$);
SELECT helper.fault($$SELECT meritum_grant(NULL, 'reader')$$);
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_reader', NULL)$$);
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_reader', 'reader', NULL)$$);
SELECT helper.fault($$SELECT meritum_revoke(NULL)$$);
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_nobody', 'reader')$$);
SELECT helper.fault($$SELECT meritum_grant('-', 'reader')$$);
SELECT helper.sqlstate(format($$SELECT meritum_grant(%L, 'reader')$$, current_user)),
       helper.sqlstate(format($$SELECT meritum_revoke(%L)$$, current_user));
SELECT * FROM helper.held WHERE level IS NULL AND (functions OR relations OR schema)
   AND rolname NOT IN ('regress_meritum_member') ORDER BY rolname COLLATE "C";

-- the check of an admin goes by level, not by the right to execute
GRANT EXECUTE ON FUNCTION meritum_grant, meritum_revoke, meritum_schedule, meritum_unschedule, meritum_attach, meritum_detach TO regress_meritum_operator;
SET ROLE regress_meritum_operator;
SELECT helper.fault($$SELECT meritum_grant('regress_meritum_operator', 'admin')$$);
SELECT helper.sqlstate($$SELECT meritum_revoke('regress_meritum_admin')$$),
       helper.sqlstate($$SELECT meritum_schedule('j', '@daily', 'SELECT 1')$$),
       helper.sqlstate($$SELECT meritum_unschedule('cleanup')$$),
       helper.sqlstate($$SELECT meritum_attach()$$),
       helper.sqlstate($$SELECT meritum_detach()$$);
RESET ROLE;
-- nor may one write the table that says so
GRANT INSERT, UPDATE ON meritum_cache.role_grant TO regress_meritum_operator;
SELECT meritum_revoke('regress_meritum_operator');
SELECT has_table_privilege('regress_meritum_operator', 'meritum_cache.role_grant', 'INSERT') AS left_over;
-- an admin, also by membership, unless he does not inherit
SET ROLE regress_meritum_admin;
SELECT meritum_grant('regress_meritum_operator', 'operator');
SELECT meritum_schedule('mine', '@daily', 'SELECT 1');
SELECT name, owner FROM meritum_cache.job WHERE name = 'mine';
SET ROLE regress_meritum_member;
SELECT meritum_schedule('mine', '@daily', 'SELECT 2');
SELECT name, owner FROM meritum_cache.job WHERE name = 'mine';
SET ROLE regress_meritum_aloof;
SELECT helper.sqlstate($$SELECT meritum_unschedule('mine')$$);
SET ROLE regress_meritum_member;
SELECT meritum_unschedule('mine');
RESET ROLE;
-- the event map
SET ROLE regress_meritum_admin;
INSERT INTO meritum_cache.event_metric VALUES ('expired', 'claims_paid');
DELETE FROM meritum_cache.event_metric WHERE event_type = 'expired';
SET ROLE regress_meritum_operator;
SELECT helper.sqlstate($$DELETE FROM meritum_cache.event_metric$$);
RESET ROLE;
-- taken away within a session
SELECT meritum_grant('regress_meritum_admin', 'operator');
SET ROLE regress_meritum_member;
SELECT helper.sqlstate($$SELECT meritum_unschedule('cleanup')$$);
RESET ROLE;
BEGIN;
SELECT meritum_grant('regress_meritum_admin', 'admin');
ROLLBACK;
GRANT EXECUTE ON FUNCTION meritum_unschedule TO regress_meritum_admin;
SET ROLE regress_meritum_admin;
SELECT helper.sqlstate($$SELECT meritum_unschedule('cleanup')$$);
RESET ROLE;

-- a role that is dropped
DROP OWNED BY "regress_meritum ""odd"" Name", regress_meritum_reader;
SELECT meritum_grant('regress_meritum_reader', 'reader');
DROP OWNED BY regress_meritum_reader;
DROP ROLE regress_meritum_reader;
SELECT count(*) FROM meritum_cache.role_grant WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role);
SET ROLE regress_meritum_operator;
SELECT meritum_is_stale(helper.p(1));
RESET ROLE;
SELECT meritum_grant('regress_meritum_admin', 'admin');
SELECT count(*) FROM meritum_cache.role_grant WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role);

-- the extension's owner who is no superuser
CREATE ROLE regress_meritum_master SUPERUSER;
DROP EXTENSION meritum_cache CASCADE;
SET ROLE regress_meritum_master;
CREATE EXTENSION meritum_cache;
RESET ROLE;
ALTER ROLE regress_meritum_master NOSUPERUSER;
SET ROLE regress_meritum_master;
SELECT meritum_grant('regress_meritum_admin', 'admin');
SELECT meritum_schedule('mine', '@daily', 'SELECT 1');
SELECT meritum_is_stale(helper.p(1));
SELECT level FROM meritum_cache.role_grant;
SELECT meritum_revoke('regress_meritum_admin');
RESET ROLE;

DROP EXTENSION meritum_cache;
DROP SCHEMA shop, oracle, helper CASCADE;
DROP ROLE regress_meritum_operator, regress_meritum_member, regress_meritum_aloof, regress_meritum_admin, "regress_meritum ""odd"" Name", regress_meritum_master;
