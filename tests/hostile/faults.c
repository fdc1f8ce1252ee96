/* Lets one call of the C library fail, the n-th about a file below one directory, and writes down
 * each such call. To be loaded before the C library (LD_PRELOAD); nothing fails until fault_arm.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1, error_number;
static long fail_at;
static atomic_long count;
static atomic_int is_armed;

/* at: which call fails, counted from 1; 0: none. number: its errno. log: an open file. */
void fault_arm(const char *directory, int log, long at, int number) {
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
    log_fd = log, fail_at = at, error_number = number;
    atomic_store(&count, 0);
    atomic_store(&is_armed, 1);
}

void fault_disarm(void) { atomic_store(&is_armed, 0); }

static int path_of(int fd, const char *name, char *path) {
    char link[64];
    ssize_t length = 0;
    if (name == NULL || name[0] != '/') {
        if (fd == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
        if (length < 0) return 0;
        path[length] = 0;
        if (name != NULL && name[0] != 0) snprintf(path + length, PATH_MAX, "/%s", name);
    } else {
        snprintf(path, PATH_MAX, "%s", name);
    }
    return strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == 0);
}

/* Whether this call is to fail; errno is set then. */
static int fails(const char *call, int fd, const char *name) {
    char path[2 * PATH_MAX + 2], line[2 * PATH_MAX + 128];
    int before = errno, length;
    long at;
    if (!atomic_load(&is_armed)) return 0;
    if (!path_of(fd, name, path)) { errno = before; return 0; }
    at = atomic_fetch_add(&count, 1) + 1;
    if (log_fd >= 0) {
        length = snprintf(line, sizeof line, "%ld %s %s\n", at, call, path + root_length);
        syscall(SYS_write, log_fd, line, (size_t)length);
    }
    errno = at == fail_at ? error_number : before;
    return at == fail_at;
}

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, #name))
#define WRAP(result, name, params, args, call, fd, path)                                      \
    result name params {                                                                       \
        static result(*real) params;                                                           \
        if (real == NULL) real = REAL(result(*) params, name);                                 \
        return fails(call, fd, path) ? -1 : real args;                                         \
    }

#define OPEN(name, params, fd, path, ...)                                                      \
    int name params {                                                                          \
        static int(*real) params;                                                              \
        mode_t mode = 0;                                                                       \
        if (real == NULL) real = REAL(int(*) params, name);                                    \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                 \
            va_list rest;                                                                      \
            va_start(rest, flags);                                                             \
            mode = va_arg(rest, mode_t);                                                       \
            va_end(rest);                                                                      \
        }                                                                                      \
        if (fails(flags & O_CREAT ? "create" : "open", fd, path)) return -1;                   \
        return real(__VA_ARGS__, flags, mode);                                                 \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, path)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, path)
OPEN(openat, (int fd, const char *path, int flags, ...), fd, path, fd, path)
OPEN(openat64, (int fd, const char *path, int flags, ...), fd, path, fd, path)

WRAP(ssize_t, read, (int fd, void *data, size_t n), (fd, data, n), "read", fd, NULL)
WRAP(ssize_t, pread, (int fd, void *data, size_t n, off_t at), (fd, data, n, at), "read", fd, NULL)
WRAP(ssize_t, pread64, (int fd, void *data, size_t n, off64_t at), (fd, data, n, at), "read", fd,
     NULL)
WRAP(ssize_t, readv, (int fd, const struct iovec *data, int n), (fd, data, n), "read", fd, NULL)
WRAP(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n), "write", fd, NULL)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at),
     "write", fd, NULL)
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), "write", fd, NULL)
WRAP(int, fsync, (int fd), (fd), "sync", fd, NULL)
WRAP(int, fdatasync, (int fd), (fd), "sync", fd, NULL)
WRAP(int, syncfs, (int fd), (fd), "sync", fd, NULL)
WRAP(int, flock, (int fd, int how), (fd, how), "lock", fd, NULL)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), "chmod", fd, NULL)
WRAP(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid), "chown", fd, NULL)
WRAP(int, fchmodat, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags),
     "chmod", fd, path)
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode), "chmod", AT_FDCWD, path)
WRAP(int, utimensat, (int fd, const char *path, const struct timespec times[2], int flags),
     (fd, path, times, flags), "utime", fd, path)
WRAP(int, futimens, (int fd, const struct timespec times[2]), (fd, times), "utime", fd, NULL)
WRAP(int, unlink, (const char *path), (path), "unlink", AT_FDCWD, path)
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), "unlink", fd, path)
WRAP(int, rmdir, (const char *path), (path), "unlink", AT_FDCWD, path)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), "mkdir", AT_FDCWD, path)
WRAP(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode), "mkdir", fd, path)
WRAP(int, rename, (const char *old, const char *new), (old, new), "rename", AT_FDCWD, new)
WRAP(int, renameat, (int fd, const char *old, int to, const char *new), (fd, old, to, new),
     "rename", to, new)
WRAP(int, linkat, (int fd, const char *old, int to, const char *new, int flags),
     (fd, old, to, new, flags), "link", to, new)
WRAP(int, link, (const char *old, const char *new), (old, new), "link", AT_FDCWD, new)
WRAP(ssize_t, readlink, (const char *path, char *data, size_t n), (path, data, n), "readlink",
     AT_FDCWD, path)
WRAP(ssize_t, readlinkat, (int fd, const char *path, char *data, size_t n), (fd, path, data, n),
     "readlink", fd, path)
WRAP(int, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags),
     "stat", fd, path)
WRAP(int, access, (const char *path, int mode), (path, mode), "stat", AT_FDCWD, path)
WRAP(int, fstat64, (int fd, struct stat64 *found), (fd, found), "fstat", fd, NULL)
WRAP(int, fstat, (int fd, struct stat *found), (fd, found), "fstat", fd, NULL)
WRAP(int, stat64, (const char *path, struct stat64 *found), (path, found), "stat", AT_FDCWD, path)
WRAP(int, stat, (const char *path, struct stat *found), (path, found), "stat", AT_FDCWD, path)
WRAP(int, lstat64, (const char *path, struct stat64 *found), (path, found), "stat", AT_FDCWD, path)
WRAP(int, lstat, (const char *path, struct stat *found), (path, found), "stat", AT_FDCWD, path)
WRAP(int, fstatat64, (int fd, const char *path, struct stat64 *found, int flags),
     (fd, path, found, flags), "stat", fd, path)
WRAP(int, fstatat, (int fd, const char *path, struct stat *found, int flags),
     (fd, path, found, flags), "stat", fd, path)
WRAP(int, statx,
     (int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict found),
     (fd, path, flags, mask, found), "stat", fd, path)

DIR *opendir(const char *path) {
    static DIR *(*real)(const char *);
    if (real == NULL) real = REAL(DIR * (*)(const char *), opendir);
    return fails("list", AT_FDCWD, path) ? NULL : real(path);
}

DIR *fdopendir(int fd) {
    static DIR *(*real)(int);
    if (real == NULL) real = REAL(DIR * (*)(int), fdopendir);
    return fails("list", fd, NULL) ? NULL : real(fd);
}

struct dirent64 *readdir64(DIR *directory) {
    static struct dirent64 *(*real)(DIR *);
    if (real == NULL) real = REAL(struct dirent64 * (*)(DIR *), readdir64);
    return fails("list", dirfd(directory), NULL) ? NULL : real(directory);
}
