/* A clock that jumps: preloaded, it adds a number of seconds, read from a file that is mapped into
 * every process, to the clock of dates. The monotonic clock stays as it is. Deadlines on the clock
 * of dates are handed to the system in its own time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_s;
static const time_t A_DATE = 1000000000; /* smaller ones are seconds since the machine started */

__attribute__((constructor)) static void map_offset(void) {
    const char *name = getenv("MGRPO_CHAOS_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        offset_s = mapped;
}

static time_t offset(void) { return offset_s ? (time_t)*offset_s : 0; }

/* The newest version of a function: the first one is that of a C library of 2002. */
static void *next(const char *name, const char *version) {
    void *found = dlvsym(RTLD_NEXT, name, version);
    return found ? found : dlsym(RTLD_NEXT, name);
}

static const struct timespec *real_deadline(const struct timespec *until, struct timespec *place) {
    if (!until || until->tv_sec < A_DATE)
        return until;
    *place = *until;
    place->tv_sec -= offset();
    return place;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec place;
    if (!real)
        real = next("pthread_cond_timedwait", "GLIBC_2.3.2");
    return real(condition, mutex, real_deadline(until, &place));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    struct timespec place;
    if (!real)
        real = next("pthread_cond_clockwait", "GLIBC_2.34");
    return real(condition, mutex, clock, real_deadline(until, &place));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex,
                            const struct timespec *restrict until) {
    static int (*real)(pthread_mutex_t *, const struct timespec *);
    struct timespec place;
    if (!real)
        real = next("pthread_mutex_timedlock", "GLIBC_2.34");
    return real(mutex, real_deadline(until, &place));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec place;
    if (!real)
        real = next("sem_timedwait", "GLIBC_2.34");
    return real(semaphore, real_deadline(until, &place));
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock,
                  const struct timespec *restrict until) {
    static int (*real)(sem_t *, clockid_t, const struct timespec *);
    struct timespec place;
    if (!real)
        real = next("sem_clockwait", "GLIBC_2.34");
    return real(semaphore, clock, real_deadline(until, &place));
}

/* Libraries with locks of their own (Abseil in Ray and gRPC) call futexes themselves. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list given;
    long a[6];
    struct timespec place;
    va_start(given, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(given, long);
    va_end(given);
    if (!real)
        real = next("syscall", "GLIBC_2.2.5");
    int waits = (int)a[1] & (FUTEX_WAIT_BITSET | FUTEX_LOCK_PI);
    if (number == SYS_futex && waits && ((int)a[1] & FUTEX_CLOCK_REALTIME))
        a[3] = (long)real_deadline((const struct timespec *)a[3], &place);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
