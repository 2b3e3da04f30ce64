/* A clock that can be broken, found before the C library's. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How many more times the clock works; negative: always. */
int works = -1;

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (works == 0) {
        errno = EINVAL;
        return -1;
    }
    works -= works > 0;
    return (int)syscall(SYS_clock_gettime, clock, now);
}
