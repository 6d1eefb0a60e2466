// Products of bf16 with fp32 sums, by VDPBF16PS: two products a lane, added to an fp32 lane. Operands come packed in panels: for each
// pair of depths the pairs of all lanes (rows of A, columns of B) side by side, the pair of a lane in 32 bits. Depth is padded with a
// zero to a whole pair. The caller cuts the work into tiles and sees to threads; nothing here allocates or keeps state.
#include <immintrin.h>

#include <cstdint>

#define NL_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Type : int32_t { F32 = 0, F16 = 1, BF16 = 2 };

inline __mmask16 first16(int count) { return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }
inline __mmask32 first32(int count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

// The first count (at most 16) values from an address, as bf16 times a factor; zeros beyond.
inline __m256i load16(const void* data, int type, int64_t at, int count, __m512 factor, bool scaled) {
  const __mmask16 mask = first16(count);
  if (type == BF16) {
    const __m256i bits = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + at);
    if (!scaled) return bits;
    const __m512 wide = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_mul_ps(wide, factor)));
  }
  const __m512 wide = type == F32
      ? _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + at)
      : _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + at));
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(scaled ? _mm512_mul_ps(wide, factor) : wide));
}

// The first count (at most 32) values of a row, as 16 pairs.
inline __m512i load32(const void* data, int type, int64_t at, int count, __m512 factor, bool scaled) {
  if (type == BF16 && !scaled) return _mm512_maskz_loadu_epi16(first32(count), static_cast<const uint16_t*>(data) + at);
  const __m256i low = load16(data, type, at, count, factor, scaled);
  const __m256i high = count > 16 ? load16(data, type, at + 16, count - 16, factor, scaled) : _mm256_setzero_si256();
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// Transposes 16 vectors of 16 32-bit values in place.
inline void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 8] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
  }
}

}  // namespace

struct Tile {
  int64_t depth;  // even
  const uint32_t* a;
  int32_t rows;
  const uint32_t* b;
  int32_t columns;
  const float* source;
  int64_t source_stride;
  const float* bias;
  void* c;  // fp32, or bf16 rounded once
  int64_t c_stride;
  const void* addend;
  int64_t addend_stride;
  int32_t addend_type;
  int32_t c_type;
  const uint32_t* rest;  // b for what depth goes on behind it, packed elsewhere; a goes on where it is
  int64_t rest_depth;    // even
};

// Lanes whose depth is contiguous: lane i of the panel is data[i * stride ...]. Lanes up to width, and depth up to a pair, become 0.
NL_EXPORT void nativelora_bf16_pack_rows(const void* data, int32_t type, int64_t stride, int32_t lanes, int32_t width, int32_t depth,
                                         float factor, uint32_t* target) {
  const bool scaled = factor != 1;
  const __m512 times = _mm512_set1_ps(factor);
  for (int lane = 0; lane < width; lane += 16) {
    const int here = width - lane < 16 ? width - lane : 16;
    const __mmask16 mask = first16(here);
    for (int k = 0; k < depth; k += 32) {
      const int count = depth - k < 32 ? depth - k : 32;
      const int pairs = (count + 1) / 2;
      __m512i rows[16];
      for (int i = 0; i < 16; i++)
        rows[i] = lane + i < lanes ? load32(data, type, (lane + i) * stride + k, count, times, scaled) : _mm512_setzero_si512();
      transpose16(rows);
      uint32_t* to = target + static_cast<int64_t>(k / 2) * width + lane;
      if (here == 16)
        for (int p = 0; p < pairs; p++) _mm512_storeu_si512(to + static_cast<int64_t>(p) * width, rows[p]);
      else
        for (int p = 0; p < pairs; p++) _mm512_mask_storeu_epi32(to + static_cast<int64_t>(p) * width, mask, rows[p]);
    }
  }
}

// Lanes side by side: lane i at depth k is data[k * stride + i].
NL_EXPORT void nativelora_bf16_pack_columns(const void* data, int32_t type, int64_t stride, int32_t lanes, int32_t width, int32_t depth,
                                            float factor, uint32_t* target) {
  const bool scaled = factor != 1;
  const __m512 times = _mm512_set1_ps(factor);
  for (int k = 0; k < depth; k += 2) {
    for (int lane = 0; lane < width; lane += 16) {
      const int here = lanes - lane < 16 ? lanes - lane : 16;
      __m512i pairs = _mm512_setzero_si512();
      if (here > 0) {
        pairs = _mm512_cvtepu16_epi32(load16(data, type, k * stride + lane, here, times, scaled));
        if (k + 1 < depth) {
          const __m512i next = _mm512_cvtepu16_epi32(load16(data, type, (k + 1) * stride + lane, here, times, scaled));
          pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(next, 16));
        }
      }
      _mm512_mask_storeu_epi32(target + static_cast<int64_t>(k / 2) * width + lane, first16(width - lane), pairs);
    }
  }
}

namespace {

template <int Rows, int Vectors>
inline void multiply(const Tile& t) {
  const uint32_t* a = t.a;
  const uint32_t* b = t.b;
  __m512 sum[Rows][Vectors];
  for (int i = 0; i < Rows; i++)
    for (int j = 0; j < Vectors; j++) sum[i][j] = _mm512_setzero_ps();
  for (int64_t pairs = t.depth / 2, rest = t.rest_depth / 2;; pairs = rest, rest = 0, b = t.rest) {
    for (; pairs > 0; pairs--) {
      __m512bh right[Vectors];
      for (int j = 0; j < Vectors; j++) right[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + 16 * j));
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++) {
        const __m512bh left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int32_t>(a[i])));
        for (int j = 0; j < Vectors; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
      }
      a += Rows;
      b += 16 * Vectors;
    }
    if (rest == 0) break;
  }
  for (int j = 0; j < Vectors; j++) {
    const __m512 bias = t.bias ? _mm512_loadu_ps(t.bias + 16 * j) : _mm512_setzero_ps();
    for (int i = 0; i < Rows; i++) {
      __m512 value = sum[i][j];
      if (t.source) value = _mm512_add_ps(value, _mm512_loadu_ps(t.source + i * t.source_stride + 16 * j));
      if (t.addend) {
        const int64_t at = i * t.addend_stride + 16 * j;
        if (t.addend_type == F32) {
          value = _mm512_add_ps(value, _mm512_loadu_ps(static_cast<const float*>(t.addend) + at));
        } else {
          const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(t.addend) + at));
          value = _mm512_add_ps(value, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
        }
      }
      if (t.bias) value = _mm512_add_ps(value, bias);
      const int64_t at = i * t.c_stride + 16 * j;
      if (t.c_type == F32)
        _mm512_storeu_ps(static_cast<float*>(t.c) + at, value);
      else
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(t.c) + at), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
    }
  }
}

}  // namespace

// C = ((A B + source) + addend) + bias over a whole tile of 12, 8 or 4 rows and 32 or 16 columns; 0: no such tile.
NL_EXPORT int32_t nativelora_bf16_tile(const Tile* t) {
  switch (t->rows * 100 + t->columns) {
    case 1232: multiply<12, 2>(*t); return 1;
    case 832: multiply<8, 2>(*t); return 1;
    case 432: multiply<4, 2>(*t); return 1;
    case 1216: multiply<12, 1>(*t); return 1;
    case 816: multiply<8, 1>(*t); return 1;
    case 416: multiply<4, 1>(*t); return 1;
    default: return 0;
  }
}
