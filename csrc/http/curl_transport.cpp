#include "http/curl_transport.h"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/fork_owned.h"
#include "http/curl_reactor.h"

namespace s3io {
namespace {

constexpr int kMostConnections = 1024;
constexpr unsigned kLeastVersion = 0x075000;  // has a place to look at a connection before its use

using Reactors = std::vector<std::unique_ptr<CurlReactor>>;

class CurlTransport final : public Transport {
 public:
  explicit CurlTransport(const CurlOptions& options) {
    if (options.connections < 1 || options.connections > kMostConnections) {
      throw Error(ErrorKind::config, message("connections must be between 1 and ", kMostConnections,
                                             ", not ", options.connections));
    }
    const curl_version_info_data* const found = curl_version_info(CURLVERSION_NOW);
    if (found->version_num < kLeastVersion) {
      throw Error(ErrorKind::engine, message("object storage needs libcurl 7.80 or newer, not ",
                                             found->version, "; LD_LIBRARY_PATH may name it"));
    }
    static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (started != CURLE_OK) {
      throw Error(ErrorKind::engine,
                  message("libcurl does not start: ", curl_easy_strerror(started)));
    }
    auto reactors = std::make_unique<Reactors>();
    int left = options.connections;
    for (int threads = std::min(options.threads, left); threads > 0; --threads) {
      const int share = (left + threads - 1) / threads;
      reactors->push_back(std::make_unique<CurlReactor>(share));
      left -= share;
    }
    reactors_ = std::move(reactors);
  }

  void submit(HttpRequest& request) override {
    if (!reactors_.is_here()) {
      throw Error(ErrorKind::config,
                  "these connections belong to the parent process; make a store of its own after "
                  "fork");
    }
    const auto free = [](const auto& reactor) { return reactor->free_connections(); };
    const auto chosen = std::ranges::max_element(*reactors_, {}, free);
    try {
      submit_to(chosen - reactors_->begin(), request);
    } catch (const Error&) {  // no thread can be started: the first one may be there
      submit_to(0, request);
    }
  }
  void cancel(HttpRequest& request) noexcept override {
    if (reactors_.is_here()) (*reactors_)[static_cast<size_t>(request.reactor)]->cancel(request);
  }
  void stop() {
    if (!reactors_.is_here()) return;
    for (const auto& reactor : *reactors_) reactor->stop();
  }

 private:
  void submit_to(ptrdiff_t number, HttpRequest& request) {
    request.reactor = static_cast<int>(number);
    (*reactors_)[static_cast<size_t>(number)]->submit(request);
  }

  ForkOwned<Reactors> reactors_;
};

// Of one process: a forked child leaves its parent's alone, whoever has the lock.
struct SharedTransport {
  struct Known {
    CurlOptions options;
    std::weak_ptr<CurlTransport> transport;
  };
  const HomeProcess home = {};
  std::mutex mutex;               // guards what follows
  std::vector<Known> transports;  // few
};

std::atomic<SharedTransport*> the_shared{nullptr};

}  // namespace

std::unique_ptr<Transport> make_curl_transport(const CurlOptions& options) {
  return std::make_unique<CurlTransport>(options);
}

std::shared_ptr<Transport> shared_curl_transport(const CurlOptions& options) {
  SharedTransport* mine = the_shared.load();
  while (mine == nullptr || !mine->home.is_here()) {
    auto made = std::make_unique<SharedTransport>();
    if (the_shared.compare_exchange_strong(mine, made.get())) mine = made.release();
  }
  const std::lock_guard lock(mine->mutex);
  auto known = std::ranges::find(mine->transports, options, &SharedTransport::Known::options);
  if (known == mine->transports.end()) {
    known = mine->transports.insert(known, {.options = options, .transport = {}});
  }
  std::shared_ptr<CurlTransport> transport = known->transport.lock();
  if (transport == nullptr) {
    transport = std::make_shared<CurlTransport>(options);
    known->transport = transport;
  }
  return transport;
}

void stop_shared_curl_transports() {
  SharedTransport* const mine = the_shared.load();
  if (mine == nullptr || !mine->home.is_here()) return;
  std::vector<std::shared_ptr<CurlTransport>> transports;
  {
    const std::lock_guard lock(mine->mutex);
    for (const auto& known : mine->transports) transports.push_back(known.transport.lock());
  }
  for (const auto& transport : transports) {
    if (transport != nullptr) transport->stop();
  }
}

}  // namespace s3io
