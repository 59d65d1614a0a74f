MODULE_big = meritum_cache
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

EXTENSION = meritum_cache
DATA = $(wildcard sql/meritum_cache--*.sql)

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --encoding=UTF8
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=.
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no dependencies on headers
$(OBJS): $(wildcard src/*.h)

# A release: all that git has of HEAD, by the version in META.json
VERSION = $(shell sed -n 's/^   "version": "\(.*\)",/\1/p' META.json)
RELEASE = $(EXTENSION)-$(VERSION)

.PHONY: dist
dist:
	git archive --format=zip --prefix=$(RELEASE)/ -o $(RELEASE).zip HEAD
	git archive --format=tar.gz --prefix=$(RELEASE)/ -o $(RELEASE).tar.gz HEAD
