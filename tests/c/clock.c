/* A clock that a test can break. The loader finds it before the C library's clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Number of calls after which the clock fails. Negative: never. */
int works = -1;

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (works == 0) {
        errno = EINVAL;
        return -1;
    }
    works -= works > 0;
    return (int)syscall(SYS_clock_gettime, clock, now);
}
