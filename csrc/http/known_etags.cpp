#include "http/known_etags.h"

#include "http/etag.h"
#include "http/response_head.h"

namespace s3io {

void KnownEtags::add(std::string_view etag) {
  if (!unquote_etag(etag) || !etag_of(version_of(0, etag)).empty()) return;
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = etags_.try_emplace(etag_number(etag), etag);
  if (!is_new && place->second != etag) place->second.clear();
}

std::string KnownEtags::find(int64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto place = etags_.find(number);
  return place == etags_.end() ? std::string() : place->second;
}

}  // namespace s3io
