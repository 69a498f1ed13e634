// Counts calls of the allocator, by the code that makes them. Preloaded: bench_pool.py compiles it to a
// shared library and runs a child with LD_PRELOAD. glibc only: it calls its __libc_ names.
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

// Callers, in an open hash table; the counts of those that find no place are added to entry 0.
enum { kCallers = 4096 };
struct Caller {
  _Atomic uintptr_t address;
  _Atomic uint64_t calls;
};
static struct Caller callers[kCallers];
static _Atomic int counting;

static void count(void* return_address) {
  if (!atomic_load_explicit(&counting, memory_order_relaxed)) return;
  const uintptr_t address = (uintptr_t)return_address;
  size_t slot = 0;
  for (size_t attempt = 0; attempt < 64; ++attempt) {
    const size_t candidate = 1 + (address * 0x9E3779B97F4A7C15u + attempt) % (kCallers - 1);
    uintptr_t seen = 0;
    if (atomic_compare_exchange_strong(&callers[candidate].address, &seen, address) ||
        seen == address) {
      slot = candidate;
      break;
    }
  }
  atomic_fetch_add_explicit(&callers[slot].calls, 1, memory_order_relaxed);
}

// For the program: start or stop; and caller number `index`, whose calls are returned.
void allocation_counting(int on) { atomic_store(&counting, on); }
int allocation_callers(void) { return kCallers; }
uint64_t allocation_caller(int index, uintptr_t* address) {
  *address = atomic_load(&callers[index].address);
  return atomic_load(&callers[index].calls);
}

#define COUNT() count(__builtin_return_address(0))

void* malloc(size_t size) {
  COUNT();
  return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
  COUNT();
  return __libc_calloc(number, size);
}

void* realloc(void* old, size_t size) {
  COUNT();
  return __libc_realloc(old, size);
}

void* memalign(size_t alignment, size_t size) {
  COUNT();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  COUNT();
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** out, size_t alignment, size_t size) {
  COUNT();
  *out = __libc_memalign(alignment, size);
  return *out == NULL ? 12 : 0;  // ENOMEM
}

// C++'s operator new, new[], and the aligned ones: counted here, by their callers, and not in malloc.
static void* or_abort(void* memory) {
  if (memory == NULL) abort();  // C cannot throw
  return memory;
}

void* _Znwm(size_t size) {
  COUNT();
  return or_abort(__libc_malloc(size == 0 ? 1 : size));
}

void* _Znam(size_t size) {
  COUNT();
  return or_abort(__libc_malloc(size == 0 ? 1 : size));
}

void* _ZnwmSt11align_val_t(size_t size, size_t alignment) {
  COUNT();
  return or_abort(__libc_memalign(alignment, size));
}

void* _ZnamSt11align_val_t(size_t size, size_t alignment) {
  COUNT();
  return or_abort(__libc_memalign(alignment, size));
}
