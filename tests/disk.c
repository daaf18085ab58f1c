/* A disk with a quota, or a slow one: preloaded, it stands between a process and its files below
 * folders named `checkpoints`. Two numbers in a file that is mapped say how. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static volatile struct {
    int64_t left;  /* bytes that may be written until the quota is reached; below 0: any number */
    int64_t per_s; /* bytes a second that are written or synchronised; 0: as fast as it goes */
} *disk;
static const size_t BLOCK = 4096; /* of a slow write: signals are handled between two */
static const int SLICES = 100;    /* a second of waiting has */

__attribute__((constructor)) static void map_disk(void) {
    const char *name = getenv("MGRPO_TEST_DISK");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        disk = mapped;
}

static int is_ours(int file) {
    char link[32], path[4096];
    if (!disk)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/checkpoints/") != NULL;
}

/* Until the disk has taken so many bytes, at a rate that may change meanwhile. */
static void take(int64_t bytes) {
    const struct timespec slice = {0, 1000000000 / SLICES};
    for (int64_t hundredths = bytes * SLICES; hundredths > 0 && disk->per_s;
         hundredths -= disk->per_s)
        nanosleep(&slice, NULL);
}

ssize_t write(int file, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    if (!is_ours(file))
        return real(file, bytes, count);
    if (disk->left == 0 && count > 0) {
        errno = EDQUOT;
        return -1;
    }
    if (disk->per_s && count > BLOCK)
        count = BLOCK;
    if (disk->left >= 0 && count > (size_t)disk->left)
        count = (size_t)disk->left;
    ssize_t written = real(file, bytes, count);
    if (disk->left >= 0 && written > 0)
        disk->left -= written;
    take(written);
    return written;
}

int fsync(int file) {
    static int (*real)(int);
    struct stat found;
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    if (is_ours(file) && !fstat(file, &found))
        take(found.st_size);
    return real(file);
}
