/*
 * Preloaded into a process that is tested: every call that changes a file below FAULTS_ROOT is counted, and at one of them something
 * happens. Also turns the wall clock. The monotonic clock is left alone, as it is by those who set a machine's time.
 *
 *   FAULTS_ROOT   folder whose changes count
 *   FAULTS_AT     number of the change that is struck, from 1
 *   FAULTS_WITH   "kill": SIGKILL before the change; "torn": SIGKILL after half of a write; an errno's number: the change fails with it,
 *                 as do those after it, for FAULTS_FOR changes (all by default)
 *   FAULTS_COUNT  file that is told how many changes there were when the process ends
 *   CLOCK_JUMPS   seconds by which the wall clock jumps forwards and backwards in turn, each half second
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long changes;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static int is_below(const char *path)
{
    const char *root = getenv("FAULTS_ROOT");
    return root && *root && path && strncmp(path, root, strlen(root)) == 0;
}

static int is_file_below(int file)
{
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

/* What happens at this change: 0 nothing, -1 the process is to die in the middle of it, else the error it fails with. */
static int strike(void)
{
    long at = number("FAULTS_AT", 0), now = atomic_fetch_add(&changes, 1) + 1;
    const char *with = getenv("FAULTS_WITH");
    if (at == 0 || now < at || !with)
        return 0;
    if (strcmp(with, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(with, "torn") == 0)
        return -1;
    return now < at + number("FAULTS_FOR", LONG_MAX / 2) ? atoi(with) : 0;
}

static int fails(int wanted)
{
    if (!wanted)
        return 0;
    int error = strike();
    if (error < 0)
        kill(getpid(), SIGKILL);
    if (error > 0)
        errno = error;
    return error > 0;
}

#define OPENS(flags) ((flags) & (O_CREAT | O_TRUNC))

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return fails(OPENS(flags) && is_below(path)) ? -1 : NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return fails(OPENS(flags) && is_below(path)) ? -1 : NEXT(open64)(path, flags, mode);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    int error = is_file_below(file) ? strike() : 0;
    if (error > 0)
        return errno = error, -1;
    ssize_t done = NEXT(write)(file, bytes, error < 0 ? count / 2 : count);
    if (error < 0)
        kill(getpid(), SIGKILL);
    return done;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at)
{
    int error = is_file_below(file) ? strike() : 0;
    if (error > 0)
        return errno = error, -1;
    ssize_t done = NEXT(pwrite64)(file, bytes, error < 0 ? count / 2 : count, at);
    if (error < 0)
        kill(getpid(), SIGKILL);
    return done;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return pwrite64(file, bytes, count, at); }

int ftruncate64(int file, off64_t length) { return fails(is_file_below(file)) ? -1 : NEXT(ftruncate64)(file, length); }
int ftruncate(int file, off_t length) { return fails(is_file_below(file)) ? -1 : NEXT(ftruncate)(file, length); }
int fsync(int file) { return fails(is_file_below(file)) ? -1 : NEXT(fsync)(file); }
int rename(const char *from, const char *to) { return fails(is_below(to) || is_below(from)) ? -1 : NEXT(rename)(from, to); }
int unlink(const char *path) { return fails(is_below(path)) ? -1 : NEXT(unlink)(path); }
int rmdir(const char *path) { return fails(is_below(path)) ? -1 : NEXT(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { return fails(is_below(path)) ? -1 : NEXT(mkdir)(path, mode); }
int symlink(const char *to, const char *path) { return fails(is_below(path)) ? -1 : NEXT(symlink)(to, path); }
int link(const char *from, const char *to) { return fails(is_below(to)) ? -1 : NEXT(link)(from, to); }

static long jump(void)
{
    static __thread struct timespec now;
    long by = number("CLOCK_JUMPS", 0);
    if (by == 0)
        return 0;
    NEXT(clock_gettime)(CLOCK_MONOTONIC, &now);
    long half = now.tv_sec * 2 + now.tv_nsec / 500000000;
    return half % 2 ? by : -by;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = NEXT(clock_gettime)(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += jump();
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    int result = NEXT(gettimeofday)(time, zone);
    if (result == 0)
        time->tv_sec += jump();
    return result;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULTS_COUNT");
    FILE *file = path && *path ? fopen(path, "w") : 0;
    if (!file)
        return;
    fprintf(file, "%ld\n", atomic_load(&changes));
    fclose(file);
}
