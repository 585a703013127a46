/* Faults below every library: loaded with LD_PRELOAD, it counts what a process and those it starts do to files under one
   folder (or to sockets), and lets the n-th write, flush, rename or creation fail, or kills them all there. A kill also
   takes what no fsync has brought to the disk, as a power failure does: files that the process had open for writing and
   has not flushed are cut to nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MAX_DIRTY 512

/* Shared by a process and its children, and through the file FAULTS_STATE with the programs they start. */
struct state { char root[4096], paths[16384]; long at, count; int action; /* an errno, or 0 for a kill */ };
static struct state none = {.at = -1}, *s = &none;
#define root (s->root)
#define at (s->at)
static struct { dev_t dev; ino_t ino; int fd; } dirty[MAX_DIRTY];
static int n_dirty;

__attribute__((constructor)) static void share(void) {
    const char *name = getenv("FAULTS_STATE");
    int fd = name ? open(name, O_RDWR | O_CREAT, 0600) : -1;
    struct stat found;
    if (fd < 0 || fstat(fd, &found) || (!found.st_size && ftruncate(fd, sizeof none))) return;
    void *shared = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return;
    s = shared;
    if (!found.st_size) at = -1;
}
void faults_arm(const char *under, long n, int what) {
    at = -1;
    strncpy(root, under, sizeof root - 1);
    s->action = what; s->count = 0; s->paths[0] = 0;
    at = n;
}
long faults_count(void) { return s->count; }
const char *faults_paths(void) { return s->paths; } /* where the fault was; of a full disk, where all were */

static __thread char last[4096]; /* what `within` has found */
static int within(const char *path) {
    if (!root[0] || !path || strncmp(path, root, strlen(root))) return 0;
    strncpy(last, path, sizeof last - 1);
    return 1;
}

static int fd_within(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return within(path);
}
static int at_within(int dir, const char *path) {
    if (path[0] == '/') return within(path);
    if (dir != AT_FDCWD) return fd_within(dir);
    char whole[8192];
    if (!getcwd(whole, 4096)) return 0;
    size_t n = strlen(whole);
    snprintf(whole + n, sizeof whole - n, "/%s", path);
    return within(whole);
}
static void die(void) {
    for (int i = 0; i < n_dirty; i++) if (dirty[i].fd >= 0 && ftruncate(dirty[i].fd, 0)) {}
    kill(0, SIGKILL); /* its group: what it has started dies with it */
}
/* Whether this call fails. A full disk stays full; any other fault happens once. */
static int hit(void) {
    if (at < 0) return 0;
    long count = __sync_add_and_fetch(&s->count, 1);
    if (count != at && !(count > at && s->action == ENOSPC)) return 0;
    size_t n = strlen(s->paths);
    snprintf(s->paths + n, sizeof s->paths - n, "%s\n", last);
    if (s->action == 0) die();
    errno = s->action;
    return 1;
}
static void soil(int fd) {
    struct stat f;
    if (at < 0 || fstat(fd, &f) || !S_ISREG(f.st_mode)) return;
    for (int i = 0; i < n_dirty; i++) if (dirty[i].dev == f.st_dev && dirty[i].ino == f.st_ino && dirty[i].fd >= 0) return;
    if (n_dirty < MAX_DIRTY) { dirty[n_dirty].dev = f.st_dev; dirty[n_dirty].ino = f.st_ino; dirty[n_dirty++].fd = dup(fd); }
}
static void clean(int fd) {
    struct stat f;
    if (fstat(fd, &f)) return;
    for (int i = 0; i < n_dirty; i++)
        if (dirty[i].dev == f.st_dev && dirty[i].ino == f.st_ino && dirty[i].fd >= 0) { close(dirty[i].fd); dirty[i].fd = -1; }
}

#define WRITES(fd) do { if (root[0] && fd_within(fd)) { if (hit()) return -1; soil(fd); } } while (0)

ssize_t write(int fd, const void *b, size_t n) {
    if (root[0] && fd_within(fd)) {
        if (at >= 0 && s->count + 1 == at && n > 1) { soil(fd); if (REAL(write)(fd, b, n / 2) < 0) return -1; } /* torn */
        if (hit()) return -1;
        soil(fd);
    }
    return REAL(write)(fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { WRITES(fd); return REAL(pwrite)(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { WRITES(fd); return REAL(pwrite64)(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { WRITES(fd); return REAL(writev)(fd, v, n); }
ssize_t sendfile(int fd, int in, off_t *o, size_t n) { WRITES(fd); return REAL(sendfile)(fd, in, o, n); }
ssize_t sendfile64(int fd, int in, off64_t *o, size_t n) { WRITES(fd); return REAL(sendfile64)(fd, in, o, n); }
ssize_t copy_file_range(int in, off64_t *a, int fd, off64_t *b, size_t n, unsigned f) {
    WRITES(fd); return REAL(copy_file_range)(in, a, fd, b, n, f);
}
ssize_t send(int fd, const void *b, size_t n, int f) {
    if (root[0] && fd_within(fd) && hit()) return -1;
    return REAL(send)(fd, b, n, f);
}
int fsync(int fd) {
    if (root[0] && fd_within(fd)) { if (hit()) return -1; clean(fd); }
    return REAL(fsync)(fd);
}
int fdatasync(int fd) {
    if (root[0] && fd_within(fd)) { if (hit()) return -1; clean(fd); }
    return REAL(fdatasync)(fd);
}
int rename(const char *a, const char *b) {
    if (root[0] && at_within(AT_FDCWD, b) && hit()) return -1;
    return REAL(rename)(a, b);
}
int renameat(int da, const char *a, int db, const char *b) {
    if (root[0] && at_within(db, b) && hit()) return -1;
    return REAL(renameat)(da, a, db, b);
}
int renameat2(int da, const char *a, int db, const char *b, unsigned f) {
    if (root[0] && at_within(db, b) && hit()) return -1;
    return REAL(renameat2)(da, a, db, b, f);
}
int mkdir(const char *p, mode_t m) {
    if (root[0] && at_within(AT_FDCWD, p) && hit()) return -1;
    return REAL(mkdir)(p, m);
}

#define OPENS(name)                                                     \
    int name(const char *p, int f, ...) {                               \
        mode_t m = 0;                                                   \
        if (f & O_CREAT) { va_list l; va_start(l, f); m = va_arg(l, mode_t); va_end(l); } \
        if ((f & O_CREAT) && root[0] && at_within(AT_FDCWD, p) && hit()) return -1; \
        return REAL(name)(p, f, m);                                     \
    }
OPENS(open)
OPENS(open64)
#define OPENATS(name)                                                   \
    int name(int d, const char *p, int f, ...) {                        \
        mode_t m = 0;                                                   \
        if (f & O_CREAT) { va_list l; va_start(l, f); m = va_arg(l, mode_t); va_end(l); } \
        if ((f & O_CREAT) && root[0] && at_within(d, p) && hit()) return -1; \
        return REAL(name)(d, p, f, m);                                  \
    }
OPENATS(openat)
OPENATS(openat64)
