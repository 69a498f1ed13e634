#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

// liburing maps and unmaps rings by system calls of its own, which ThreadSanitizer does not see: a
// ring where another thread's ring has been looks like a race with it. A race in our own code would
// still show, in the counters next to each ring.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:liburing.h\n"; }
