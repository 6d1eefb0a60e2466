// Lanes, divergence, barriers, memory of all kinds, atomics: against plain C++.
#include <algorithm>
#include <map>

#include "exec_tests.h"

namespace testing {

namespace {

using Words = std::vector<std::vector<uint32_t>>;

void shuffles() {
  auto a = words(64, 1), b = words(64, 2);
  auto out = snippet<uint32_t>("lanes", "shuffles", 1, 64, Words{a, b}, 64 * 32);
  auto expect = [&](int k, auto from, auto within) {
    for (size_t t = 0; t < 64; t++) {
      size_t lane = t % 32, warp = t - lane;
      bool ok = within(int(lane));
      CHECK_IS(out[t * 32 + size_t(k)], a[warp + (ok ? size_t(from(int(lane), int(b[t] & 31))) : lane)]);
      CHECK_IS(out[t * 32 + size_t(k) + 1], uint32_t(ok));
    }
  };
  auto always = [](int) { return true; };
  expect(0, [](int l, int) { return l ^ 5; }, always);
  expect(2, [](int l, int) { return l - 3; }, [](int l) { return l >= 3; });
  expect(4, [](int l, int) { return l + 7; }, [](int l) { return l + 7 < 32; });
  expect(6, [](int, int y) { return y; }, always);
  // Segments of 8: what leaves the segment upwards keeps its own value; down the xor of 9 may go.
  expect(8, [](int l, int) { return l ^ 9; }, [](int l) { return (l ^ 9) <= (l | 7); });
  expect(10, [](int l, int) { return l - 3; }, [](int l) { return l % 8 >= 3; });
  expect(12, [](int l, int) { return l + 3; }, [](int l) { return l % 8 + 3 < 8; });
  expect(14, [](int l, int y) { return l / 8 * 8 + y % 8; }, always);
  for (size_t t = 0; t < 64; t++) {
    CHECK_IS(out[t * 32 + 16], a[t ^ 1]);
    CHECK_IS(out[t * 32 + 17], t % 32 >= 16 ? 5u : t % 32 == 15 ? 0u : t % 32 == 14 ? 77u : a[t + 1]);
    CHECK_IS(out[t * 32 + 18], a[t ^ 16]);
  }
}

void votes() {
  auto a = words(64, 4);
  for (size_t t = 32; t < 64; t++) a[t] = a[t] % 1000 + 2;
  auto out = snippet<uint32_t>("lanes", "votes", 1, 64, Words{a}, 64 * 16);
  for (size_t t = 0; t < 64; t++) {
    size_t warp = t / 32 * 32;
    uint32_t ballot = 0, sum = 0, most = 0, all = 0;
    int32_t least = INT32_MAX;
    bool noOne = true;
    for (size_t l = 0; l < 32; l++) {
      uint32_t v = a[warp + l];
      ballot |= uint32_t(int32_t(v) > 0) << l;
      noOne = noOne && v != 1;
      sum += v;
      least = std::min(least, int32_t(v));
      most = std::max(most, v);
      all ^= v;
    }
    const uint32_t lane = uint32_t(t % 32);
    const uint32_t expected[] = {ballot, ballot != 0xffffffffu, noOne, ballot == 0 || ballot == 0xffffffffu, sum, uint32_t(least), most, all, int32_t(a[t]) > 0 ? ballot : 0,
                                 (1u << lane) - 1, lane, uint32_t(t / 32)};
    for (size_t k = 0; k < 12; k++) CHECK_IS(out[t * 16 + k], expected[k]);
  }
}

void divergence() {
  auto a = words(128, 7);
  auto out = snippet<uint32_t>("control", "collatz", 2, 64, Words{a}, 256);
  std::vector<uint32_t> steps(128);
  for (size_t t = 0; t < 128; t++) {
    uint32_t x = a[t] % 1000 + 1, count = 0, fold = 0;
    while (x != 1) {
      if (x & 1) {
        x = 3 * x + 1;
        if (count % 3 == 2) fold ^= x * 7;
      } else {
        x >>= 1;
        if ((x & 3) == 3) continue;
        fold += x;
      }
      if (++count > 200) break;
    }
    steps[t] = count;
    CHECK_IS(out[t * 2], fold * 1000 + count);
  }
  for (size_t t = 0; t < 128; t++) {
    uint32_t sum = 0;
    for (size_t l = 0; l < 32; l++) sum += steps[t / 32 * 32 + l];
    CHECK_IS(out[t * 2 + 1], sum);
  }

  size_t n = 101;
  auto early = snippet<uint32_t>("control", "early", 2, 64, Words{a}, 128, int64_t(n));
  for (size_t i = 0; i < 128; i++) {
    uint32_t sum = 0;
    for (uint32_t k = 0; i < n && k < a[i] % 17; k++) {
      if (a[(i + k) % n] % 13 == 0) {
        sum = 0x80000000u + k;
        break;
      }
      for (uint32_t m = 0; m < a[(i + k) % n] % 5; m++) sum += m * k + a[m];
    }
    CHECK_IS(early[i], sum);
  }

  auto jumps = snippet<uint32_t>("control", "table", 2, 64, Words{a}, 256);
  for (size_t warp = 0; warp < 128; warp += 32) {
    uint32_t all = 0, r[32];
    for (size_t l = 0; l < 32; l++) {
      uint32_t x = a[warp + l];
      r[l] = 5 + (x % 4 == 0 ? 10 : x % 4 == 1 ? x + 1 : x % 4 == 2 ? x * x : 40);
      all += r[l];
    }
    for (size_t l = 0; l < 32; l++) {
      CHECK_IS(jumps[(warp + l) * 2], r[l]);
      CHECK_IS(jumps[(warp + l) * 2 + 1], all);
    }
  }

  auto remain = snippet<uint32_t>("control", "remain", 2, 64, Words{a}, 128);
  for (size_t t = 0; t < 128; t++) {
    size_t lane = t % 32;
    uint32_t want = lane >= 24 && (a[t] & 1) ? 0 : lane >= 24 && (a[t] & 2) ? 9 : a[t - lane + lane % 24];
    CHECK_IS(remain[t], want);
  }
}

void memories() {
  auto a = words(64 * 4, 3);
  auto bytes = bytesOf(a);
  auto out = snippet<uint64_t>("memory", "loads", 1, 64, Words{a}, 64 * 24);
  for (size_t t = 0; t < 64; t++) {
    const uint8_t* p = &bytes[t * 16];
    auto half = [&](size_t at) { return uint16_t(p[at] | p[at + 1] << 8); };
    uint64_t first, second;
    std::memcpy(&first, p, 8);
    std::memcpy(&second, p + 8, 8);
    const uint32_t* w = &a[t * 4];
    const uint64_t expected[] = {uint32_t(int32_t(int8_t(p[3]))), p[3], uint32_t(int32_t(int16_t(half(2)))), half(2), uint64_t(int64_t(int8_t(p[0]))), uint64_t(int64_t(int32_t(w[1]))),
                                 uint16_t(int16_t(int8_t(p[3]))), w[0] ^ w[3], uint64_t(half(14)) << 32 | half(10), first ^ second, (t & 7) * (t & 7), t & 1 ? 9u : 1u, p[7], w[0]};
    for (size_t k = 0; k < 14; k++) CHECK_IS(out[t * 24 + k], expected[k]);
  }

  auto x = words(64, 5);
  auto spaces = snippet<uint32_t>("memory", "spaces", 1, 64, Words{x}, 256, 0, 192);
  for (size_t t = 0; t < 64; t++) {
    uint32_t v = x[t];
    CHECK_IS(spaces[t * 4], v & 1 ? x[63 - t] : v & 2 ? v * ((v >> 2) % 24 + 1) : v);
    CHECK_IS(spaces[t * 4 + 1], (v >> 5) % 24 == v % 24 ? 5u : v * ((v >> 5) % 24 + 1));
    CHECK_IS(spaces[t * 4 + 2], uint32_t(uint16_t(x[t ^ 1])));
    CHECK_IS(spaces[t * 4 + 3], uint32_t(uint8_t(x[(t + 9) % 64] >> 16)));
  }

  auto b = words(128, 6);
  auto named = snippet<uint32_t>("memory", "named", 1, 128, Words{b}, 128);
  auto now = b;
  for (size_t k = 0; k < 4; k++) {
    auto before = now;
    for (size_t t = 0; t < 128; t++) now[t] += before[((t / 32) ^ 1) * 32 + (t % 32 + k) % 32];
  }
  CHECK(named == now);

  std::vector<float> f(128);
  for (size_t i = 0; i < 128; i++) f[i] = float(i % 11) - 3;
  auto sums = snippet<float>("memory", "sums", 2, 64, std::vector<std::vector<float>>{f}, 128);
  for (size_t t = 0; t < 128; t++) {
    float sum = 0;
    for (size_t i = 0; i < 64; i++) sum += f[t / 64 * 64 + i];
    CHECK_IS(sums[t], sum);
  }

  auto within = snippet<uint32_t>("memory", "within", 1, 64, Words{x}, 64);
  for (size_t t = 0; t < 64; t++) CHECK_IS(within[t], x[t ^ 9 ^ 7] * 3);
}

void atomics() {
  size_t n = 256;
  auto a = words(n, 8);
  auto out = snippet<uint32_t>("atomics", "atomics", 4, 64, Words{a}, 32 + 4096 + n);
  uint32_t sum = 0, all = 0, parity = 0, counts[8] = {}, small = 0;
  uint32_t most = 0;
  int32_t least = 0, top = 0;
  uint64_t wide = 0;
  int64_t highest = 0;
  for (uint32_t v : a) {
    sum += v;
    least = std::min(least, int32_t(v));
    most = std::max(most, v);
    top = std::max(top, int32_t(v));
    all |= v;
    parity ^= v;
    counts[v & 7]++;
    wide += uint64_t(v) << 20;
    highest = std::max(highest, int64_t(int32_t(v)) * (1 << 20));
    small += v & 15;
  }
  const uint32_t expected[] = {sum, uint32_t(least), most, 0, all, parity, uint32_t(n % 41), uint32_t(top), uint32_t(wide), uint32_t(wide >> 32), uint32_t(highest), uint32_t(uint64_t(highest) >> 32), small};
  for (size_t k = 0; k < 13; k++) CHECK_IS(out[k], expected[k]);
  for (size_t k = 0; k < 8; k++) CHECK_IS(out[16 + k], counts[k]);
  float total;
  std::memcpy(&total, &out[24], 4);
  CHECK_IS(total, float(n) / 2);
  for (size_t i = 0; i < n; i++) {
    CHECK_IS(out[32 + i], a[i]);
    CHECK_IS(out[32 + 4096 + i], 0u);
  }
}

}  // namespace

void flowTests() {
  shuffles();
  votes();
  divergence();
  memories();
  atomics();
}

}  // namespace testing
