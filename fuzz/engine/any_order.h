// Orders of any numbers, one made of others.
#pragma once

#include "engine/input.h"
#include "order/record_order.h"

namespace s3io::fuzz {

// Throws Error(config) for what the factories refuse. `repeats` becomes true where the order gives
// a record more than once in an epoch, or not all of them: a mixture.
inline RecordOrderPtr any_order(Input& input, int depth, bool& repeats) {
  const int64_t kind = input.between(0, depth > 0 ? 5 : 2);
  if (kind == 0) return sequential_order(input.number());
  if (kind == 1) return shuffled_order(input.number(), input.bits());
  if (kind == 2) {
    const int64_t records = input.number();
    return block_order(records, input.number(), input.bits());
  }
  if (kind == 3) {
    RecordOrderPtr inner = any_order(input, depth - 1, repeats);
    return window_order(std::move(inner), input.number(), input.bits());
  }
  if (kind == 4) {
    RecordOrderPtr inner = any_order(input, depth - 1, repeats);
    std::vector<ViewStage> stages(static_cast<size_t>(input.between(0, 3)));
    for (ViewStage& stage : stages) {
      stage.offset = input.number();
      stage.count = input.flag() ? inner->num_records() : input.number();
      if (input.flag()) stage.permutation = {.size = input.number(), .key = input.bits()};
    }
    return select_order(std::move(inner), stages);
  }
  repeats = true;
  std::vector<MixPart> parts(static_cast<size_t>(input.between(0, 3)));
  for (MixPart& part : parts) {
    part.order = any_order(input, depth - 1, repeats);
    part.first_record = input.number();
  }
  std::vector<int64_t> weights;
  for (size_t part = 0; part < parts.size(); ++part) weights.push_back(input.number());
  const uint64_t seed = input.bits();
  return mix_order(std::move(parts), weights, seed, input.number());
}

}  // namespace s3io::fuzz
