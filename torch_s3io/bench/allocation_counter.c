// Counts calls of the allocator, and the bytes asked for, in a process and in those that it forks. Preloaded by `torch-s3io bench`,
// which compiles it when it is needed. glibc only: it calls its __libc_ names.
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

// In shared memory, so that forked workers count into it, too. Null until the library is set up.
static struct Counts {
  _Atomic uint64_t calls;
  _Atomic uint64_t bytes;
}* counts;

__attribute__((constructor)) static void set_up(void) {
  void* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) counts = page;
}

static void count(size_t size) {
  if (counts == NULL) return;
  atomic_fetch_add_explicit(&counts->calls, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&counts->bytes, size, memory_order_relaxed);
}

uint64_t torch_s3io_allocator_calls(void) { return counts == NULL ? 0 : atomic_load(&counts->calls); }
uint64_t torch_s3io_allocated_bytes(void) { return counts == NULL ? 0 : atomic_load(&counts->bytes); }

void* malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
  count(number * size);
  return __libc_calloc(number, size);
}

void* realloc(void* old, size_t size) {
  count(size);
  return __libc_realloc(old, size);
}

void* memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** out, size_t alignment, size_t size) {
  count(size);
  *out = __libc_memalign(alignment, size);
  return *out == NULL ? 12 : 0;  // ENOMEM
}
