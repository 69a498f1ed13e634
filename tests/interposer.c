// Preloaded into a program: counts, by thread, the calls that allocate memory, and all calls of fsync.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kMostThreads = 4096 };
static struct {
  int thread;
  long allocations;
} counts[kMostThreads];
static int threads = 0;
static long fsyncs = 0;
static __thread int own = -1;

static void count(void) {
  if (own < 0) {
    own = __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
    if (own >= kMostThreads) abort();
    counts[own].thread = (int)syscall(SYS_gettid);
  }
  ++counts[own].allocations;
}

// Allocations of the calling thread, and of all other threads together.
long allocations_of_this_thread(void) { return own < 0 ? 0 : counts[own].allocations; }
long allocations_of_other_threads(void) {
  long total = 0;
  for (int index = 0; index < threads; ++index) {
    if (index != own) total += __atomic_load_n(&counts[index].allocations, __ATOMIC_RELAXED);
  }
  return total;
}
long fsync_calls(void) { return fsyncs; }

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
  count();
  return __libc_malloc(size);
}
void *calloc(size_t number, size_t size) {
  count();
  return __libc_calloc(number, size);
}
void *realloc(void *old, size_t size) {
  count();
  return __libc_realloc(old, size);
}
void *memalign(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  count();
  *out = __libc_memalign(alignment, size);
  return *out == NULL ? 12 : 0;
}

int fsync(int fd) {
  __atomic_fetch_add(&fsyncs, 1, __ATOMIC_RELAXED);
  return (int)syscall(SYS_fsync, fd);
}
