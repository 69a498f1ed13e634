#include "io/uring_engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/error.h"
#include "io/uring.h"

namespace s3io {
namespace {

// Flags from best to plainest; older kernels refuse the first ones with EINVAL.
//
// Note: SINGLE_ISSUER with DEFER_TASKRUN runs completions only inside our own `wait`, which spares
// the interrupts and locks of the general case; it ties the ring to one thread.
constexpr unsigned kOneThreadFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
constexpr unsigned kAnyThreadFlags = IORING_SETUP_COOP_TASKRUN;

std::string setup_failure(int error_number) {
  std::string hint;
  if (error_number == ENOSYS) hint = "the kernel has no io_uring";
  if (error_number == EPERM || error_number == EACCES) {
    hint =
        "forbidden here: by sysctl kernel.io_uring_disabled or by the container's seccomp profile";
  }
  if (error_number == ENOMEM) hint = "raise the limit of locked memory (ulimit -l)";
  return message("io_uring is not available: ", errno_text(error_number), hint.empty() ? "" : "; ",
                 hint, "; engine='threads' works without it");
}

}  // namespace

const bool kBuiltWithUring = true;

std::unique_ptr<IoEngine> make_uring_engine(const EngineOptions& options) {
  return std::make_unique<UringEngine>(options);
}

UringEngine::UringEngine(const EngineOptions& options)
    : depth_(options.depth), registered_(kMaxBuffers) {
  int status = -EINVAL;
  for (const unsigned flags : {options.any_thread ? kAnyThreadFlags : kOneThreadFlags, 0U}) {
    status = io_uring_queue_init(static_cast<unsigned>(depth_), &ring_, flags);
    if (status != -EINVAL) break;
  }
  if (status < 0) throw Error(ErrorKind::engine, setup_failure(-status));
  if ((ring_.features & IORING_FEAT_EXT_ARG) ==
      0) {  // bounded waits without a timeout request: 5.11
    io_uring_queue_exit(&ring_);
    throw Error(ErrorKind::engine, setup_failure(ENOSYS));
  }
  can_register_ = io_uring_register_buffers_sparse(&ring_, kMaxBuffers) == 0;
}

UringEngine::~UringEngine() { io_uring_queue_exit(&ring_); }

void UringEngine::prepare(io_uring_sqe* sqe, const IoRequest& request) const {
  const auto offset = static_cast<uint64_t>(request.offset);
  const bool is_read = request.operation == IoOperation::read;
  const bool fixed =
      request.buffer_index >= 0 && registered_[static_cast<size_t>(request.buffer_index)];
  if (is_read && fixed) {
    io_uring_prep_read_fixed(sqe, request.fd, request.data, request.length, offset,
                             request.buffer_index);
  } else if (is_read) {
    io_uring_prep_read(sqe, request.fd, request.data, request.length, offset);
  } else if (fixed) {
    io_uring_prep_write_fixed(sqe, request.fd, request.data, request.length, offset,
                              request.buffer_index);
  } else {
    io_uring_prep_write(sqe, request.fd, request.data, request.length, offset);
  }
}

void UringEngine::submit(std::span<IoRequest* const> requests) {
  for (IoRequest* request : requests) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);  // never null: in flight <= depth = ring size
    prepare(sqe, *request);
    io_uring_sqe_set_data(sqe, request);
  }
  in_flight_ += static_cast<int>(requests.size());
  unsubmitted_ += static_cast<int>(requests.size());
}

int UringEngine::reap(std::span<IoRequest*> done) {
  unsigned head = 0;
  size_t count = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (count == done.size()) break;
    auto* request = static_cast<IoRequest*>(io_uring_cqe_get_data(cqe));
    request->result = cqe->res;
    done[count++] = request;
  }
  io_uring_cq_advance(&ring_, static_cast<unsigned>(count));
  in_flight_ -= static_cast<int>(count);
  return static_cast<int>(count);
}

int UringEngine::submit_and_wait(unsigned count, milliseconds timeout) {
  // Without a timer: even one that has expired puts the thread to sleep.
  if (timeout <= milliseconds(0)) return io_uring_submit_and_get_events(&ring_);
  __kernel_timespec relative{};
  relative.tv_sec = timeout.count() / 1000;
  relative.tv_nsec = (timeout.count() % 1000) * 1'000'000;
  io_uring_cqe* unused = nullptr;
  return io_uring_submit_and_wait_timeout(&ring_, &unused, count, &relative, nullptr);
}

// Note: not the ring's own descriptor. With DEFER_TASKRUN poll(2) sleeps on it though completions
// are there (seen on Linux 6.18); an eventfd wakes it.
int UringEngine::ready_fd() {
  if (!ready_.valid() && can_signal_) {
    ready_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    can_signal_ = ready_.valid() && io_uring_register_eventfd(&ring_, ready_.get()) == 0;
  }
  return can_signal_ ? ready_.get() : -1;
}

int UringEngine::wait(std::span<IoRequest*> done, int min_count, milliseconds timeout) {
  if (ready_.valid()) {  // before the look at what is there: what comes later signals again
    uint64_t unused = 0;
    static_cast<void>(::read(ready_.get(), &unused, sizeof(unused)));
  }
  const int wanted = std::min({min_count, in_flight_, static_cast<int>(done.size())});
  const int ready = static_cast<int>(io_uring_cq_ready(&ring_));
  if (unsubmitted_ > 0 || ready < wanted) {
    const int status = submit_and_wait(static_cast<unsigned>(std::max(wanted, 1)), timeout);
    unsubmitted_ = static_cast<int>(io_uring_sq_ready(&ring_));
    // ETIME: nothing came in time. EINTR: a signal. EAGAIN, EBUSY: the kernel is short of memory or
    // of completion slots; what was not taken stays queued. All of them: the caller comes again.
    if (status < 0 && status != -ETIME && status != -EINTR && status != -EAGAIN &&
        status != -EBUSY) {
      throw Error(ErrorKind::read, message("io_uring_enter failed: ", errno_text(-status)));
    }
  }
  return reap(done);
}

bool UringEngine::register_buffer(int index, std::span<std::byte> memory) {
  if (!can_register_ || index < 0 || index >= kMaxBuffers) return false;
  const auto position = static_cast<size_t>(index);
  if (registered_[position]) return true;
  const iovec vector{memory.data(), memory.size()};
  const __u64 no_tag = 0;
  const int updated = io_uring_register_buffers_update_tag(&ring_, static_cast<unsigned>(index),
                                                           &vector, &no_tag, 1);
  if (updated == 1) registered_[position] = true;
  if (updated == -ENOMEM) can_register_ = false;  // the limit of locked memory: do not ask again
  return updated == 1;
}

}  // namespace s3io
