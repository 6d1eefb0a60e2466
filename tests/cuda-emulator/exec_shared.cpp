#include "exec_shared.h"

#include <algorithm>

namespace emulator {

namespace {

uint32_t warpOf(uint32_t who) { return who >= kManyOfWarp ? who - kManyOfWarp : (who - 1) / kLanes; }

}  // namespace

void SharedMemory::begin(uint32_t size, uint32_t warpCount, bool checked) {
  bytes = size;
  warps_ = warpCount;
  traced = checked;
  size_t room = (size_t(size) + 15) / 16 * 16;
  data.assign(room, 0xcd);
  state.assign(room, 0);
  if (traced && words_.size() < room / 4) {
    words_.assign(room / 4, SharedTrace{});
    bytes_.assign(room, SharedTrace{});
  }
  barrier(kAll);
  barriers = 1;
  memset(met, 0, sizeof met);
}

void SharedMemory::wrap() {
  // The stamps are used up: what is past is forgotten, and nothing is ordered behind it.
  std::fill(words_.begin(), words_.end(), SharedTrace{});
  stamp_ = 1;
  memset(ordered_, 0, sizeof ordered_);
  memset(least_, 0, sizeof least_);
  memset(leastOthers_, 0, sizeof leastOthers_);
}

void SharedMemory::barrier(uint32_t warps) {
  next();
  barriers++;
  uint32_t all = warps_ == 32 ? kAll : (1u << warps_) - 1;
  apart_ = (warps & all) != all;
  if (!apart_) {
    for (uint32_t w = 0; w < warps_; w++) {
      std::fill_n(ordered_[w], warps_, stamp_);
      std::fill_n(met[w], warps_, barriers);
      least_[w] = leastOthers_[w] = stamp_;
    }
    return;
  }
  // Each that met knows what any of them knew.
  for (uint32_t v = 0; v < warps_; v++) {
    uint32_t stamp = 0, number = 0;
    for (uint32_t w = 0; w < warps_; w++) {
      if (!(warps >> w & 1)) continue;
      stamp = std::max(stamp, v == w ? stamp_ : ordered_[w][v]);
      number = std::max(number, v == w ? barriers : met[w][v]);
    }
    for (uint32_t w = 0; w < warps_; w++) {
      if (!(warps >> w & 1)) continue;
      ordered_[w][v] = stamp;
      met[w][v] = number;
    }
  }
  for (uint32_t w = 0; w < warps_; w++) {
    leastOthers_[w] = stamp_;
    for (uint32_t v = 0; v < warps_; v++)
      if (v != w) leastOthers_[w] = std::min(leastOthers_[w], ordered_[w][v]);
    least_[w] = std::min(leastOthers_[w], ordered_[w][w]);
  }
}

void SharedMemory::warpBarrier(uint32_t warp) {
  next();
  ordered_[warp][warp] = stamp_;
  least_[warp] = std::min(leastOthers_[warp], stamp_);
}

std::string describeToucher(uint32_t who) {
  if (who == kManyWarps) return "several warps";
  if (who >= kManyOfWarp) return "several threads of warp " + std::to_string(warpOf(who));
  return "thread " + std::to_string(who - 1) + " (warp " + std::to_string(warpOf(who)) + ")";
}

bool SharedMemory::readWords(const uint32_t* addresses, uint32_t lanes, uint32_t warp) {
  if (apart_) return false;
  uint32_t past = least_[warp] << kStampShift, now = stamp_ << kStampShift, first = warp * kLanes + 1, many = kManyOfWarp + warp, bad = 0;
  alignas(64) uint32_t readers[kLanes];
  const SharedTrace* words = words_.data();
  // Lanes that are not in the mask have an address, too, but it may be anything.
  uint32_t any = addresses[__builtin_ctz(lanes)];
  for (uint32_t i = 0; i < kLanes; i++) {
    uint32_t address = lanes >> i & 1 ? addresses[i] : any;
    SharedTrace t = words[address / 4];
    uint32_t who = t.reader & kWho, me = first + i;
    // A broadcast is of many; of lanes apart that read the same word the last stands for all.
    uint32_t left = addresses[i > 0 ? i - 1 : 1];
    me = left == address ? many : me;
    bool ok = !(t.reader & kFlag) & (t.writer < past);
    uint32_t both = who == kManyWarps || who == many || who == me ? who : who - first < kLanes ? many : kManyWarps;
    readers[i] = now | (t.reader < past ? me : both);
    bad |= !ok;
  }
  if (bad) return false;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    uint32_t i = uint32_t(__builtin_ctz(rest));
    words_[addresses[i] / 4].reader = readers[i];
  }
  return true;
}

bool SharedMemory::writeWords(const uint32_t* addresses, uint32_t lanes, uint32_t warp) {
  uint32_t past = least_[warp] << kStampShift, now = stamp_ << kStampShift, first = warp * kLanes + 1, bad = 0;
  const SharedTrace* words = words_.data();
  uint32_t any = addresses[__builtin_ctz(lanes)];
  for (uint32_t i = 0; i < kLanes; i++) {
    SharedTrace t = words[(lanes >> i & 1 ? addresses[i] : any) / 4];
    bool ok = !(t.reader & kFlag) & (t.writer < past) & ((t.reader < past) | ((t.reader & kWho) == first + i));
    bad |= uint32_t(!ok) << i;
  }
  if (bad & lanes) return false;
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    uint32_t i = uint32_t(__builtin_ctz(rest));
    words_[addresses[i] / 4].writer = now | (first + i);
  }
  return true;
}

uint32_t SharedMemory::touchSlowly(SharedTrace& t, uint32_t warp, uint32_t me, Access access) {
  bool atomic = access == Access::Atomic, same = false;
  uint32_t now = stamp_ << kStampShift, writer = t.writer & kWho, reader = t.reader & kWho;
  if (writer != kNobody && writer != me) {
    same = t.writer >> kStampShift == stamp_;
    if (!same && t.writer >> kStampShift >= ordered_[warp][warpOf(writer)] && !(atomic && (t.writer & kFlag))) return writer;
  }
  uint32_t read = t.reader >> kStampShift;
  bool readBefore = reader == kNobody || reader == me ||
                    (reader == kManyWarps ? read < leastOthers_[warp] && read < ordered_[warp][warp] : read < ordered_[warp][warpOf(reader)]);
  if (access == Access::Read) {
    uint32_t who = readBefore ? me : reader != kManyWarps && warpOf(reader) == warp ? kManyOfWarp + warp : kManyWarps;
    t.reader = now | (t.reader & kFlag) | who;
    return kNobody;
  }
  if (!readBefore && read != stamp_ && !(reader == kManyWarps && read < leastOthers_[warp])) return reader;
  t.writer = now | (atomic ? kFlag : 0) | me;
  return same && !atomic ? kSameInstruction : kNobody;
}

uint32_t SharedMemory::touchParts(uint32_t address, uint32_t size, uint32_t warp, uint32_t me, Access access) {
  SharedTrace& word = words_[address / 4];
  SharedTrace* parts = &bytes_[address & ~3u];
  if (!(word.reader & kFlag)) {
    for (int k = 0; k < 4; k++) parts[k] = word;
    word.reader |= kFlag;
  }
  bool same = false;
  for (uint32_t i = 0; i < size; i++) {
    uint32_t other = touchSlowly(parts[(address & 3) + i], warp, me, access);
    if (other == kSameInstruction) same = true;
    else if (other) return other;
  }
  if (size == 4 && access == Access::Write) {
    // One writer of all four, and what came before is in order with it.
    word.writer = parts[0].writer;
    word.reader = 0;
  }
  return same ? kSameInstruction : kNobody;
}

}  // namespace emulator
