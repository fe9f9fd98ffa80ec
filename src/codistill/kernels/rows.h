// Maps as rows of C numbers in memory, gone through in the width of a register on all threads.
//
// So that loops have that width for any C, R rows are taken together, such that R C is a multiple
// of TILE: a "tall" row. What is known of a channel is repeated R times to its width.

#pragma once

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

namespace rows {

using c10::BFloat16;

constexpr int64_t LANES = 16;
constexpr int64_t TILE = 4 * LANES;  // four sums at a time hide the latency of an addition
constexpr int64_t BLOCK = 32768;     // numbers in a block: they stay in the second-level cache

#define INLINE __attribute__((always_inline)) inline
// GCC and clang make the best instructions there are of these, for every processor.
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

// `load` and `store` move LANES numbers or, at the end of a map, one.
template <class V>
INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

template <class V>
INLINE V load(const BFloat16* p) {
  if constexpr (std::is_same_v<V, float>) {
    return static_cast<float>(*p);
  } else {
    Halves h;
    std::memcpy(&h, p, sizeof(h));
    return (Floats)(__builtin_convertvector(h, Words) << 16);
  }
}

template <class V>
INLINE void store(float* p, V v) {
  std::memcpy(p, &v, sizeof(V));
}

template <class V>
INLINE void store(BFloat16* p, V v) {
  if constexpr (std::is_same_v<V, float>) {
    *p = v;
  } else {
    const Words bits = (Words)v;
    Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to the nearest, ties to even
    const Words nan = (Words)(v != v);                     // which rounding could make infinite
    rounded = (rounded & ~nan) | ((bits | 0x400000u) & nan);
    const Halves h = __builtin_convertvector(rounded >> 16, Halves);
    std::memcpy(p, &h, sizeof(h));
  }
}

// v, but 0 where `sign` is 0 or below. As PyTorch's ReLU it lets what is not a number through.
INLINE float where_positive(float v, float sign) { return sign <= 0 ? 0.0f : v; }
INLINE Floats where_positive(Floats v, Floats sign) { return (Floats)((Ints)v & ~(sign <= 0)); }

struct Rows {
  int64_t n, channels, width, tall, per_block, blocks;

  Rows(int64_t n, int64_t channels) : n(n), channels(channels) {
    const int64_t repeat = TILE / std::gcd(channels, TILE);
    width = repeat * channels;
    tall = n / repeat;
    // At least TILE rows, so that what is known of each block and channel is little beside the map.
    per_block = std::max({int64_t(1), BLOCK / width, TILE / repeat});
    blocks = std::max(int64_t(1), (tall + per_block - 1) / per_block);
  }

  int64_t first(int64_t block) const { return block * per_block; }
  int64_t last(int64_t block) const { return std::min(tall, first(block) + per_block); }
  // The last block also has the rows that make no whole tall one.
  int64_t begin(int64_t block) const { return first(block) * width; }
  int64_t end(int64_t block) const {
    return block == blocks - 1 ? n * channels : last(block) * width;
  }
  int64_t rows(int64_t block) const { return (end(block) - begin(block)) / channels; }

  std::vector<float> repeated(const float* of_channels) const {
    std::vector<float> wide(width);
    for (int64_t j = 0; j < width; j += channels)
      std::copy(of_channels, of_channels + channels, wide.begin() + j);
    return wide;
  }
};

// f(lanes, i, j) for every number i of a block, whose place in a tall row is j.
template <class F>
INLINE void for_each(const Rows& rows, int64_t block, F f) {
  for (int64_t s = rows.first(block); s < rows.last(block); ++s)
    for (int64_t j = 0; j < rows.width; j += LANES) f(Floats{}, s * rows.width + j, j);
  for (int64_t i = rows.last(block) * rows.width; i < rows.end(block); ++i)
    f(0.0f, i, (i - rows.begin(block)) % rows.width);
}

// For each channel the sums over a block of the K numbers that f(lanes, i, j, sums) adds.
template <int K, class F>
INLINE void sum_columns(const Rows& rows, int64_t block, double* sums, F f) {
  const int64_t C = rows.channels, width = rows.width;
  std::fill(sums, sums + K * C, 0.0);
  for (int64_t tile = 0, c = 0; tile < width; tile += TILE) {
    Floats found[K][4] = {};
    for (int64_t s = rows.first(block); s < rows.last(block); ++s) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < 4; ++v) {
        Floats add[K] = {};
        const int64_t j = tile + v * LANES;
        f(Floats{}, s * width + j, j, add);
        for (int k = 0; k < K; ++k) found[k][v] += add[k];
      }
    }
    for (int64_t lane = 0; lane < TILE; ++lane) {
      for (int k = 0; k < K; ++k) sums[k * C + c] += found[k][lane / LANES][lane % LANES];
      c = c + 1 == C ? 0 : c + 1;
    }
  }
  for (int64_t i = rows.last(block) * width; i < rows.end(block); ++i) {
    float add[K] = {};
    f(0.0f, i, (i - rows.begin(block)) % width, add);
    for (int k = 0; k < K; ++k) sums[k * C + i % C] += add[k];
  }
}

// Calls f(block) for all blocks on all threads; from the last on, which the caches still hold.
template <class F>
void for_blocks(const Rows& rows, bool backwards, F f) {
  at::parallel_for(0, rows.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) f(backwards ? end - 1 - (b - begin) : b);
  });
}

}  // namespace rows
