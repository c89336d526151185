/* A disk that is full for one file, loaded by LD_PRELOAD: see tests/test_write_failures.py.

Names of files are told below a folder, without what differs from run to run: the token of a part,
an event file's time, a SavedModel's temporary number. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, OPEN, RENAME, SYNC, MKDIR };

#define MOST 4096
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], victim[PATH_MAX];
static char *seen[MOST];
static int num_seen, watched = -1, code, num_failed;

/* ---- what the test calls through ctypes ---- */

void disk_watch(const char *folder, int kind, const char *name, int number) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < num_seen; i++) free(seen[i]);
    num_seen = num_failed = 0;
    snprintf(root, sizeof root, "%s/", folder);
    snprintf(victim, sizeof victim, "%s", name);
    watched = kind;
    code = number;
    pthread_mutex_unlock(&lock);
}
int disk_count(void) { return num_seen; }
int disk_failed(void) { return num_failed; }
const char *disk_name(int i) { return seen[i]; }

/* ---- which file it is ---- */

static void cut(char *text, const char *mark) {
    char *at = strstr(text, mark);
    if (at) at[strlen(mark)] = 0;
}

static void settle(char *name) {
    for (char *at = name; (at = strstr(at, ".part-"));)
        if (strlen(at) > 15 && at[14] == '-')
            memmove(at, at + 15, strlen(at + 15) + 1);
        else
            at++;
    cut(name, "tfevents");
    cut(name, ".tempstate");
    cut(name, ".pb.tmp");
}

static int fails(int kind, const char *path) {
    if (kind != watched || !path) return 0;
    char name[PATH_MAX];
    if (path[0] == '/')
        snprintf(name, sizeof name, "%s", path);
    else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        if (snprintf(name, sizeof name, "%s/%s", here, path) >= (int)sizeof name) return 0;
    }
    pthread_mutex_lock(&lock);
    int failed = 0;
    if (!strncmp(name, root, strlen(root))) {
        settle(name);
        const char *own = name + strlen(root);
        int i = 0;
        while (i < num_seen && strcmp(seen[i], own)) i++;
        if (i == num_seen && num_seen < MOST) seen[num_seen++] = strdup(own);
        failed = !strcmp(own, victim);
        num_failed += failed;
    }
    pthread_mutex_unlock(&lock);
    if (failed) errno = code;
    return failed;
}

static int fd_fails(int kind, int fd) {
    if (kind != watched || fd <= 2) return 0;
    int before = errno;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

/* ---- the calls ---- */

#undef fwrite_unlocked
#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

ssize_t write(int fd, const void *data, size_t size) {
    return fd_fails(WRITE, fd) ? -1 : REAL(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fd_fails(WRITE, fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fd_fails(WRITE, fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *data, int count) {
    return fd_fails(WRITE, fd) ? -1 : REAL(writev)(fd, data, count);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    return fd_fails(WRITE, out) ? -1 : REAL(sendfile)(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    return fd_fails(WRITE, out) ? -1 : REAL(sendfile64)(out, in, at, size);
}
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t size, unsigned flags) {
    return fd_fails(WRITE, out) ? -1 : REAL(copy_file_range)(in, a, out, b, size, flags);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    return fd_fails(WRITE, fileno(file)) ? 0 : REAL(fwrite)(data, size, count, file);
}
size_t fwrite_unlocked(const void *data, size_t size, size_t count, FILE *file) {
    return fd_fails(WRITE, fileno(file)) ? 0 : REAL(fwrite_unlocked)(data, size, count, file);
}
int fputs(const char *text, FILE *file) {
    return fd_fails(WRITE, fileno(file)) ? EOF : REAL(fputs)(text, file);
}
int fsync(int fd) { return fd_fails(SYNC, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fd_fails(SYNC, fd) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) {
    return fails(RENAME, to) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    return fails(RENAME, to) ? -1 : REAL(renameat)(a, from, b, to);
}
int mkdir(const char *path, mode_t mode) {
    return fails(MKDIR, path) ? -1 : REAL(mkdir)(path, mode);
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }
static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}
#define OPENING(name)                                              \
    int name(const char *path, int flags, ...) {                   \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = mode_of(flags, rest);                        \
        va_end(rest);                                              \
        if (writes(flags) && fails(OPEN, path)) return -1;         \
        return REAL(name)(path, flags, mode);                      \
    }
OPENING(open)
OPENING(open64)
#define OPENING_AT(name)                                           \
    int name(int folder, const char *path, int flags, ...) {       \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = mode_of(flags, rest);                        \
        va_end(rest);                                              \
        if (writes(flags) && fails(OPEN, path)) return -1;         \
        return REAL(name)(folder, path, flags, mode);              \
    }
OPENING_AT(openat)
OPENING_AT(openat64)
FILE *fopen(const char *path, const char *mode) {
    return strpbrk(mode, "wa+") && fails(OPEN, path) ? NULL : REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    return strpbrk(mode, "wa+") && fails(OPEN, path) ? NULL : REAL(fopen64)(path, mode);
}
