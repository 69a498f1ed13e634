// Follows the headers of many objects at once, so that the store is asked for as much as it can
// give though each chain wants one thing after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "format/header_chain.h"
#include "store/store.h"

namespace s3io {

struct ObjectToScan {
  std::string path;
  std::optional<ObjectVersion> version = std::nullopt;  // none: as it is now
};

struct ScanOptions {
  int depth = 32;              // objects that are read at once
  double read_timeout_s = 30;  // longest wait in which nothing comes back
};

struct ScanProgress {
  int64_t objects = 0;  // that are done
  int64_t bytes = 0;    // of all objects, as far as their chains are
};

struct ScanCounts {
  int64_t reads = 0;
  int64_t bytes = 0;  // that were read
};

// The chain of an object that was just opened: its number, path and size.
using MakeChain = std::function<std::unique_ptr<HeaderChain>(size_t number, const std::string& path,
                                                             int64_t size_bytes)>;
// Called every few milliseconds; throws to give up.
using ScanCallback = std::function<void(const ScanProgress&)>;

// Gives every chain what it wants, until all are at their ends, in the calling thread. Reads 4 KiB
// for a header, and serves with it what more lies in there; where headers lie so near to each other
// that this takes more time than reading all, it reads all.
//
// Memory: 1 MiB for each object that is read. Throws what a chain throws, Error(config) for options
// that make no sense, Error(file_changed) for an object that was changed, Error(read_timeout), and
// what else goes wrong with a read.
ScanCounts scan_objects(std::shared_ptr<Store> store, std::vector<ObjectToScan> objects,
                        const MakeChain& make_chain, const ScanOptions& options,
                        const ScanCallback& on_progress = {});

}  // namespace s3io
