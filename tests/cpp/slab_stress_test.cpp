// The slot protocol under load: no two holders ever have one slot, whoever is killed when.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "leak_check.h"
#include "memory/slab_handover.h"
#include "testing.h"

namespace s3io::testing::slab_stress_test {

constexpr int64_t kHandovers = rounds(500'000);
constexpr int64_t kWords = 32;  // a slot is filled with as many times the pattern of its batch

struct Sent {
  SlotHandle handle;
  uint64_t pattern = 0;
};

// A process that fills slots and sends them until it is killed.
[[noreturn]] void produce(SlabArena& arena, int pipe_end, int64_t preferred, uint64_t life) {
  const pid_t parent = ::getppid();
  const auto claim = arena.claim(preferred, 6);
  if (!claim) ::_exit(1);
  announce(arena.id(), claim->segment, claim->slab);
  for (uint64_t number = 1;; ++number) {
    int64_t slot = -1;
    while (true) {
      const uint32_t seen = claim->slab->release_count();
      if ((slot = claim->slab->hold_free_slot()) >= 0) break;
      claim->slab->wait_for_release(seen, milliseconds(100));
      if (::getppid() != parent) ::_exit(1);
    }
    const uint64_t pattern = (life << 40) + number;
    auto* words = reinterpret_cast<uint64_t*>(claim->slab->slot_data(slot));
    std::fill(words, words + kWords, pattern);
    claim->slab->lend(slot);
    const Sent sent{*send(claim->slab->slot_data(slot), kWords * 8), pattern};
    claim->slab->release_lent(slot);
    if (::write(pipe_end, &sent, sizeof(sent)) != sizeof(sent)) ::_exit(1);
  }
}

class Producers {
 public:
  explicit Producers(SlabArena& arena) : arena_(arena) {
    for (size_t place = 0; place < pids_.size(); ++place) start(place);
  }

  void kill(size_t place) {
    ::kill(pids_[place], SIGKILL);
    REQUIRE(::waitpid(pids_[place], nullptr, 0) == pids_[place]);
  }
  // Another one in its place, while handles of the dead one are still on their way.
  void replace(size_t place) {
    kill(place);
    start(place);
  }
  void kill_all() {
    for (size_t place = 0; place < pids_.size(); ++place) kill(place);
  }
  size_t count() const { return pids_.size(); }

  // The next handle, of whichever producer; false at the end of all.
  bool receive(std::mt19937_64& random, Sent& sent) {
    while (!pipes_.empty()) {
      REQUIRE(::poll(pipes_.data(), pipes_.size(), 60'000) > 0);
      const size_t first = random() % pipes_.size();
      for (size_t offset = 0; offset < pipes_.size(); ++offset) {
        const size_t index = (first + offset) % pipes_.size();
        if (pipes_[index].revents == 0) continue;
        if (::read(pipes_[index].fd, &sent, sizeof(sent)) == sizeof(sent)) return true;
        ::close(pipes_[index].fd);
        pipes_.erase(pipes_.begin() + static_cast<std::ptrdiff_t>(index));
        break;
      }
    }
    return false;
  }

 private:
  void start(size_t place) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    ++lives_;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::close(ends[0]);
      produce(arena_, ends[1], static_cast<int64_t>(place), lives_);
    }
    ::close(ends[1]);
    pids_[place] = child;
    pipes_.push_back({ends[0], POLLIN, 0});
  }

  SlabArena& arena_;
  std::array<pid_t, 3> pids_{};
  std::vector<pollfd> pipes_;
  uint64_t lives_ = 0;
};

TEST_CASE("no two holders ever have one slot, in many random hand-overs and with kills") {
  const LeakCheck leaks;
  auto arena = std::make_shared<SlabArena>(SlabGeometry{6, kWords * 8, 64});
  Consumer consumer(arena);
  std::mt19937_64 random(11);
  int64_t received = 0;
  int64_t stale = 0;
  int64_t wrong = 0;
  int64_t kills = 0;
  std::vector<std::pair<Received, uint64_t>> held;  // also across the death of their producers
  const auto drop = [&](size_t index) {
    const auto& [view, pattern] = held[index];
    const auto* words = reinterpret_cast<const uint64_t*>(view.data);
    wrong += std::count(words, words + kWords, pattern) == kWords ? 0 : 1;
    free_received(view.owner);
    held.erase(held.begin() + static_cast<std::ptrdiff_t>(index));
  };
  Producers producers(*arena);
  Sent sent;
  bool ending = false;
  while (producers.receive(random, sent)) {
    try {
      held.emplace_back(consumer.receive(sent.handle), sent.pattern);
      ++received;
    } catch (const Error&) {
      ++stale;  // its producer is dead, and another one has the segment
    }
    while (!held.empty() && random() % 3 != 0) drop(random() % held.size());
    if (!ending && random() % (kHandovers / 40) == 0) {
      producers.replace(random() % producers.count());
      ++kills;
    }
    if (!ending && received >= kHandovers) {
      producers.kill_all();
      ending = true;
    }
  }
  while (!held.empty()) drop(0);
  CHECK(wrong == 0);
  CHECK(received >= kHandovers);
  CHECK(kills > 10);
  CHECK(stale < received / 100);
  const auto claim = arena->claim(0, 6, Clock::now() + Slab::kRestAfterDeath);
  REQUIRE(claim);
  CHECK(claim->slab->held_slots() == 0);
}

// One mapping, so that ThreadSanitizer sees both sides; between them nothing but the slots' words
// orders what they do.
TEST_CASE("what the producer wrote is there for the consumer, and reading ends before reuse") {
  Slab slab({4, 64, 64});
  constexpr uint64_t kBatches = 40'000;
  std::array<std::atomic<uint32_t>, 4> mailboxes{};  // the generation of a sent slot, or 0
  std::atomic<uint64_t> taken_out{0};
  std::atomic<int64_t> wrong{0};
  const auto consume = [&] {
    while (taken_out.load(std::memory_order_relaxed) < kBatches) {
      for (int64_t slot = 0; slot < 4; ++slot) {
        auto& mailbox = mailboxes[static_cast<size_t>(slot)];
        const uint32_t generation = mailbox.exchange(0, std::memory_order_relaxed);
        if (generation == 0) continue;
        if (!slab.receive(slot, generation)) ++wrong;
        const auto* data = reinterpret_cast<const uint64_t*>(slab.slot_data(slot));
        if (std::count(data, data + 8, uint64_t{generation}) != 8) ++wrong;
        slab.release_received(slot);
        taken_out.fetch_add(1, std::memory_order_relaxed);
      }
    }
  };
  std::thread first(consume);
  std::thread second(consume);
  for (uint64_t batch = 0; batch < kBatches;) {
    const uint32_t seen = slab.release_count();
    const int64_t slot = slab.hold_free_slot();
    if (slot < 0) {
      slab.wait_for_release(seen, milliseconds(100));
      continue;
    }
    auto* data = reinterpret_cast<uint64_t*>(slab.slot_data(slot));
    std::fill(data, data + 8, uint64_t{slab.generation(slot)});
    slab.lend(slot);
    if (!slab.send(slot)) ++wrong;
    mailboxes[static_cast<size_t>(slot)].store(slab.generation(slot), std::memory_order_relaxed);
    slab.release_lent(slot);
    ++batch;
  }
  first.join();
  second.join();
  CHECK(wrong == 0);
  CHECK(slab.held_slots() == 0);
  CHECK(slab.received_slots() == 0);
}

}  // namespace s3io::testing::slab_stress_test
