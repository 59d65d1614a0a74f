/*
 * clock.c
 *		A clock that a test can set.
 *
 * Preloaded into a server (LD_PRELOAD), it adds to the time of day the number
 * of microseconds that is in the file named by TEST_CLOCK, at each call anew.
 * Clocks that only measure durations, and with them all sleeping, go on as
 * they are: that is what happens when somebody sets the clock of a machine.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t
offset(void)
{
	static volatile int64_t *shared = NULL;
	static const int64_t none = 0;

	if (shared == NULL)
	{
		const char *name = getenv("TEST_CLOCK");
		int			fd = name != NULL ? open(name, O_RDONLY) : -1;
		void	   *page = MAP_FAILED;

		if (fd >= 0)
		{
			page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
			close(fd);
		}
		shared = (volatile int64_t *) (page != MAP_FAILED ? page : (void *) &none);
	}
	return *shared;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	static int	(*real) (clockid_t, struct timespec *) = NULL;
	int			result;

	if (real == NULL)
		real = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, now);
	if (result == 0 && clock == CLOCK_REALTIME)
	{
		int64_t		us = now->tv_nsec / 1000 + offset();

		/* the remainder must not be negative */
		now->tv_sec += us / 1000000 - (us % 1000000 < 0);
		now->tv_nsec = (us % 1000000 + (us % 1000000 < 0) * 1000000) * 1000 +
			now->tv_nsec % 1000;
	}
	return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	now->tv_sec = ts.tv_sec;
	now->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *result)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (result != NULL)
		*result = ts.tv_sec;
	return ts.tv_sec;
}
