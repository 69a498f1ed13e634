#include "order/record_order.h"

#include "base/error.h"

namespace s3io {

RecordOrder::RecordOrder(int64_t num_positions, int64_t num_records)
    : num_positions_(num_positions), num_records_(num_records) {
  if (num_positions < 0 || num_positions > kMostPositions) {
    throw Error(ErrorKind::config,
                message("an order has between 0 and 2^62 positions, not ", num_positions));
  }
  if (num_records < 0 || num_records > kMostPositions) {
    throw Error(ErrorKind::config,
                message("record numbers are between 0 and 2^62, not ", num_records));
  }
}

void RecordOrder::check_epoch(int64_t number) {
  if (number < 0) {
    throw Error(ErrorKind::config, message("epoch must be at least 0, not ", number));
  }
}

}  // namespace s3io
