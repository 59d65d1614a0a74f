\set ECHO none
-- begin.sql: what most of the regression tests begin with.
--
-- The extension, and in a schema of their own the application's tables, with
-- the oracle and the helpers.  Of this nothing is echoed, so that the expected
-- output tells of the test alone.

SET client_min_messages = warning;
SET datestyle = 'ISO, YMD';
CREATE EXTENSION meritum_cache;
CREATE SCHEMA shop;
SET search_path = shop, public;
\ir platform.sql
\ir oracle.sql
\ir helper.sql
\set ECHO all
