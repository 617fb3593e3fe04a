/* What a process does to the files of its database, in order: preloaded into the router, for tests.powerloss.
 *
 * POWERLOSS_PREFIX names the files: all whose path begins so, but the log's index (-shm), which is made anew after a power
 * loss. Their directory is one too, as far as it is synced. POWERLOSS_JOURNAL is the file that gets a record for each open,
 * write, truncate, sync and unlink that succeeded. One lock is held around the call and its record, so that the journal has
 * them in the order in which they happened.
 *
 *     cc -shared -fPIC -O2 -o journal.so journal.c -ldl -lpthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096
#define FILES 16
#define PATH_BYTES 4096

enum kind { CREATED = 1, OPENED, WRITTEN, TRUNCATED, SYNCED, UNLINKED };

/* `length` bytes of data follow: of what was written, or the path. */
struct record {
    uint32_t kind;
    uint32_t file;
    uint64_t offset;
    uint64_t length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *prefix;
static char directory[PATH_BYTES];
static char paths[FILES][PATH_BYTES];
static int files;
/* By descriptor, the number of its file and one; 0 is none of ours. */
static int of_descriptor[DESCRIPTORS];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static int (*real_unlink)(const char *);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);

static void fail(const char *what)
{
    real_write(2, what, strlen(what));
    abort();
}

__attribute__((constructor)) static void begin(void)
{
    real_open = dlsym(RTLD_NEXT, "open");
    real_openat = dlsym(RTLD_NEXT, "openat");
    real_close = dlsym(RTLD_NEXT, "close");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_write = dlsym(RTLD_NEXT, "write");
    const char *path = getenv("POWERLOSS_JOURNAL");
    prefix = getenv("POWERLOSS_PREFIX");
    if (!path || !prefix || strlen(prefix) >= PATH_BYTES)
        fail("POWERLOSS_JOURNAL and POWERLOSS_PREFIX are not set\n");
    strcpy(directory, prefix);
    *strrchr(directory, '/') = 0;
    journal = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0)
        fail("cannot open POWERLOSS_JOURNAL\n");
}

/* Its number, or -1 where it is none of ours. */
static int file_at(const char *path)
{
    size_t length = strlen(path);
    int ours = !strncmp(path, prefix, strlen(prefix)) && (length < 4 || strcmp(path + length - 4, "-shm"));
    if (!ours && strcmp(path, directory))
        return -1;
    for (int number = 0; number < files; number++)
        if (!strcmp(paths[number], path))
            return number;
    if (files == FILES || length >= PATH_BYTES)
        fail("more files than tests.powerloss knows\n");
    strcpy(paths[files], path);
    return files++;
}

static int file_of(int descriptor)
{
    return descriptor >= 0 && descriptor < DESCRIPTORS ? of_descriptor[descriptor] - 1 : -1;
}

static void note(enum kind kind, int file, uint64_t offset, const void *data, size_t length)
{
    struct record record = {kind, (uint32_t)file, offset, length};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)data, length}};
    if (writev(journal, parts, 2) != (ssize_t)(sizeof record + length))
        fail("cannot write POWERLOSS_JOURNAL\n");
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
    pthread_mutex_lock(&lock);
    int file = file_at(path);
    int there = file < 0 || !faccessat(at, path, F_OK, 0);
    int descriptor = real_openat(at, path, flags, mode);
    if (descriptor >= 0 && file >= 0) {
        if (descriptor >= DESCRIPTORS)
            fail("more descriptors than tests.powerloss knows\n");
        int saved = errno;
        of_descriptor[descriptor] = file + 1;
        note(there ? OPENED : CREATED, file, 0, path, strlen(path));
        errno = saved;
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE_OF(flags, mode)                                                                                           \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode)
    return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int close(int descriptor)
{
    pthread_mutex_lock(&lock);
    if (file_of(descriptor) >= 0)
        of_descriptor[descriptor] = 0;
    int result = real_close(descriptor);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    pthread_mutex_lock(&lock);
    int file = file_at(path);
    int result = real_unlink(path);
    if (!result && file >= 0)
        note(UNLINKED, file, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset)
{
    int file = file_of(descriptor);
    if (file < 0)
        return real_pwrite(descriptor, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t written = real_pwrite(descriptor, data, length, offset);
    if (written > 0)
        note(WRITTEN, file, (uint64_t)offset, data, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset)
{
    return pwrite(descriptor, data, length, offset);
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    if (file_of(descriptor) >= 0)
        fail("SQLite writes with write(), which tests.powerloss does not know\n");
    return real_write(descriptor, data, length);
}

int ftruncate(int descriptor, off_t length)
{
    int file = file_of(descriptor);
    if (file < 0)
        return real_ftruncate(descriptor, length);
    pthread_mutex_lock(&lock);
    int result = real_ftruncate(descriptor, length);
    if (!result)
        note(TRUNCATED, file, (uint64_t)length, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int descriptor, off64_t length)
{
    return ftruncate(descriptor, length);
}

/* The lock is held all the while: what comes during a sync is not taken for synced, as it would come after it. */
static int synced(int descriptor, int (*sync)(int))
{
    int file = file_of(descriptor);
    if (file < 0)
        return sync(descriptor);
    pthread_mutex_lock(&lock);
    int result = sync(descriptor);
    if (!result)
        note(SYNCED, file, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int descriptor)
{
    return synced(descriptor, real_fsync);
}

int fdatasync(int descriptor)
{
    return synced(descriptor, real_fdatasync);
}
