// Batch normalisation, the addition of a residual, and ReLU, both ways, for training on a CPU.
//
// Maps are (B, C, H, W) with the channels last in memory: N = B H W rows of C numbers, float32 or
// bfloat16. Everything is computed in float32; sums over blocks of rows are added up in float64, in
// one order whatever the number of threads: the same numbers always give the same bits.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "rows.h"

// What goes through a map has pointers of its own (`[=]`): those of others are read anew each time.
namespace {

using namespace rows;
using at::Tensor;

// Mean and variance (of the N numbers themselves) of every channel, as two rows of C.
//
// Every block has its mean and squared deviations from it, corrected for the mean's rounding; then
// those are combined: Chan, Golub, LeVeque, Algorithms for computing the sample variance, 1983.
template <class T>
std::vector<double> moments(const Rows& rows, const T* x) {
  const int64_t C = rows.channels;
  std::vector<double> parts(rows.blocks * 2 * C);  // mean and squared deviations, per block
  for_blocks(rows, false, [&](int64_t b) {
    double* part = parts.data() + b * 2 * C;
    const double n = static_cast<double>(rows.rows(b));
    std::vector<double> sums(2 * C);
    std::vector<float> about(C);
    sum_columns<1>(rows, b, sums.data(), [=](auto lanes, int64_t i, int64_t, auto* add) {
      add[0] = load<decltype(lanes)>(x + i);
    });
    for (int64_t c = 0; c < C; ++c) about[c] = static_cast<float>(sums[c] / n);
    const std::vector<float> wide = rows.repeated(about.data());
    const float* middle = wide.data();
    sum_columns<2>(rows, b, sums.data(), [=](auto lanes, int64_t i, int64_t j, auto* add) {
      using V = decltype(lanes);
      const V d = load<V>(x + i) - load<V>(middle + j);
      add[0] = d;
      add[1] = d * d;
    });
    for (int64_t c = 0; c < C; ++c) {
      part[c] = about[c] + sums[c] / n;
      part[C + c] = sums[C + c] - sums[c] * sums[c] / n;
    }
  });
  std::vector<double> all(2 * C, 0.0);
  for (int64_t b = 0; b < rows.blocks; ++b)
    for (int64_t c = 0; c < C; ++c)
      all[c] += parts[b * 2 * C + c] * (static_cast<double>(rows.rows(b)) / rows.n);
  for (int64_t b = 0; b < rows.blocks; ++b)
    for (int64_t c = 0; c < C; ++c) {
      const double d = parts[b * 2 * C + c] - all[c];
      all[C + c] += (parts[b * 2 * C + C + c] + rows.rows(b) * d * d) / rows.n;
    }
  return all;
}

template <class T>
void forward(const Rows& rows, const T* x, const T* residual, const float* scale,
             const float* shift, T* y) {
  const std::vector<float> scales = rows.repeated(scale), shifts = rows.repeated(shift);
  const float *by = scales.data(), *plus = shifts.data();
  for_blocks(rows, true, [&](int64_t b) {
    const auto write = [&](auto added) {
      for_each(rows, b, [=](auto lanes, int64_t i, int64_t j) {
        using V = decltype(lanes);
        V v = load<V>(x + i) * load<V>(by + j) + load<V>(plus + j);
        if constexpr (decltype(added)::value) v += load<V>(residual + i);
        store(y + i, where_positive(v, v));
      });
    };
    residual ? write(std::true_type{}) : write(std::false_type{});
  });
}

// What reaches the normalised map: the gradient where ReLU was open. The output says where, or, if
// it was not kept, the input once more.
template <bool KEPT, class T>
struct Opened {
  const T *gradient, *x, *y;
  const float *scale, *shift;

  template <class V>
  INLINE V operator()(V, int64_t i, int64_t j) const {
    const V g = load<V>(gradient + i);
    if constexpr (KEPT) return where_positive(g, load<V>(y + i));
    return where_positive(g, load<V>(x + i) * load<V>(scale + j) + load<V>(shift + j));
  }
};

// Writes dx and, if the output was kept, the residual's gradient; returns the sums over the rows
// of what reaches the normalised map, and of that times (x - mean), as two rows of C.
template <bool KEPT, class T>
std::vector<double> backward(const Rows& rows, const T* gradient, const T* x, const T* y,
                             const float* known, T* dx, T* d_residual) {
  const int64_t C = rows.channels;
  const float *mean = known, *invstd = known + C, *scale = known + 2 * C, *shift = known + 3 * C;
  const std::vector<float> means = rows.repeated(mean), scales = rows.repeated(scale);
  const std::vector<float> shifts = rows.repeated(shift);
  const float *middle = means.data(), *by = scales.data();
  const Opened<KEPT, T> opened{gradient, x, y, by, shifts.data()};
  std::vector<double> parts(rows.blocks * 2 * C), sums(2 * C, 0.0);
  for_blocks(rows, false, [&](int64_t b) {
    const auto add_up = [=](auto lanes, int64_t i, int64_t j, auto* add) {
      using V = decltype(lanes);
      const V g = opened(lanes, i, j);
      if constexpr (KEPT) store(d_residual + i, g);
      add[0] = g;
      add[1] = g * (load<V>(x + i) - load<V>(middle + j));
    };
    sum_columns<2>(rows, b, parts.data() + b * 2 * C, add_up);
  });
  for (int64_t b = 0; b < rows.blocks; ++b)
    for (int64_t c = 0; c < 2 * C; ++c) sums[c] += parts[b * 2 * C + c];

  std::vector<float> slope(C), offset(C);
  for (int64_t c = 0; c < C; ++c) {
    const double inverse = static_cast<double>(invstd[c]);
    slope[c] = static_cast<float>(-scale[c] * inverse * inverse * sums[C + c] / rows.n);
    offset[c] = static_cast<float>(-scale[c] * sums[c] / rows.n);
  }
  const std::vector<float> slopes = rows.repeated(slope.data());
  const std::vector<float> offsets = rows.repeated(offset.data());
  const float *tilt = slopes.data(), *plus = offsets.data();
  for_blocks(rows, true, [&](int64_t b) {
    for_each(rows, b, [=](auto lanes, int64_t i, int64_t j) {
      using V = decltype(lanes);
      V g;
      if constexpr (KEPT) {
        g = load<V>(d_residual + i);
      } else {
        g = opened(lanes, i, j);
      }
      const V d = load<V>(x + i) - load<V>(middle + j);
      const V of_sums = d * load<V>(tilt + j) + load<V>(plus + j);
      store(dx + i, g * load<V>(by + j) + of_sums);
    });
  });
  return sums;
}

Rows rows_of(const Tensor& x) {
  TORCH_CHECK(x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast),
              "batch_norm_relu needs maps (B, C, H, W) in channels_last layout");
  TORCH_CHECK(x.numel() > x.size(1), "batch_norm_relu needs more than one number per channel");
  return Rows(x.numel() / x.size(1), x.size(1));
}

void require_like(const Tensor& x, const Tensor& other, const char* name) {
  TORCH_CHECK(other.sizes() == x.sizes() && other.scalar_type() == x.scalar_type() &&
                  other.is_contiguous(at::MemoryFormat::ChannelsLast),
              name, " has to have the shape, the type and the layout of x");
}

void require_floats(const Tensor& of_channels, int64_t n, const char* name) {
  TORCH_CHECK(of_channels.scalar_type() == at::kFloat && of_channels.is_contiguous() &&
                  of_channels.numel() == n,
              name, " has to hold ", n, " numbers in float32");
}

// Calls f with a null pointer to the type of the maps.
template <class F>
void with_type(const Tensor& x, F f) {
  if (x.scalar_type() == at::kFloat) return f(static_cast<float*>(nullptr));
  TORCH_CHECK(x.scalar_type() == at::kBFloat16, "batch_norm_relu needs float32 or bfloat16");
  f(static_cast<BFloat16*>(nullptr));
}

// Returns the output and, as rows of C in float32, mean, 1 / std, and the scale and the shift that
// make the normalised map. Moves the running statistics.
std::tuple<Tensor, Tensor> batch_norm_relu(const Tensor& x, const std::optional<Tensor>& residual,
                                           const Tensor& weight, const Tensor& bias,
                                           Tensor& running_mean, Tensor& running_var,
                                           double momentum, double eps) {
  const Rows rows = rows_of(x);
  const int64_t C = rows.channels;
  if (residual) require_like(x, *residual, "residual");
  require_floats(weight, C, "weight");
  require_floats(bias, C, "bias");
  require_floats(running_mean, C, "running_mean");
  require_floats(running_var, C, "running_var");
  Tensor y = at::empty_like(x);
  Tensor known = at::empty({4, C}, x.options().dtype(at::kFloat));
  float* k = known.data_ptr<float>();
  const float *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float *average = running_mean.data_ptr<float>(), *spread = running_var.data_ptr<float>();
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* input = x.data_ptr<T>();
    const std::vector<double> found = moments(rows, input);
    for (int64_t c = 0; c < C; ++c) {
      const double mean = found[c], var = found[C + c], invstd = 1 / std::sqrt(var + eps);
      const double unbiased = var * rows.n / (rows.n - 1);
      k[c] = static_cast<float>(mean);
      k[C + c] = static_cast<float>(invstd);
      k[2 * C + c] = static_cast<float>(w[c] * invstd);
      k[3 * C + c] = static_cast<float>(b[c] - mean * w[c] * invstd);
      average[c] = static_cast<float>((1 - momentum) * average[c] + momentum * mean);
      spread[c] = static_cast<float>((1 - momentum) * spread[c] + momentum * unbiased);
    }
    const T* added = residual ? residual->data_ptr<T>() : nullptr;
    forward(rows, input, added, k + 2 * C, k + 3 * C, y.data_ptr<T>());
  });
  running_mean.unsafeGetTensorImpl()->bump_version();
  running_var.unsafeGetTensorImpl()->bump_version();
  return {y, known};
}

// Returns the gradients of x, of the residual (undefined without `y`, the output of a call that
// had one), of the weight and of the bias.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_relu_backward(
    const Tensor& gradient, const Tensor& x, const std::optional<Tensor>& y, const Tensor& known) {
  const Rows rows = rows_of(x);
  const int64_t C = rows.channels;
  require_like(x, gradient, "gradient");
  if (y) require_like(x, *y, "y");
  require_floats(known, 4 * C, "known");
  Tensor dx = at::empty_like(x), d_residual = y ? at::empty_like(x) : Tensor();
  Tensor d_weight = at::empty({C}, known.options()), d_bias = at::empty({C}, known.options());
  const float* k = known.data_ptr<float>();
  float *dw = d_weight.data_ptr<float>(), *db = d_bias.data_ptr<float>();
  with_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T *g = gradient.data_ptr<T>(), *input = x.data_ptr<T>();
    T* out = dx.data_ptr<T>();
    const std::vector<double> sums =
        y ? backward<true, T>(rows, g, input, y->data_ptr<T>(), k, out, d_residual.data_ptr<T>())
          : backward<false, T>(rows, g, input, nullptr, k, out, nullptr);
    for (int64_t c = 0; c < C; ++c) {
      dw[c] = static_cast<float>(sums[C + c] * k[C + c]);
      db[c] = static_cast<float>(sums[c]);
    }
  });
  return {dx, d_residual, d_weight, d_bias};
}

}  // namespace

TORCH_LIBRARY(codistill, library) {
  library.def(
      "batch_norm_relu(Tensor x, Tensor? residual, Tensor weight, Tensor bias, "
      "Tensor(a!) running_mean, Tensor(b!) running_var, float momentum, float eps) "
      "-> (Tensor y, Tensor known)");
  library.def(
      "batch_norm_relu_backward(Tensor gradient, Tensor x, Tensor? y, Tensor known) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(codistill, CPU, library) {
  library.impl("batch_norm_relu", TORCH_FN(batch_norm_relu));
  library.impl("batch_norm_relu_backward", TORCH_FN(batch_norm_relu_backward));
}
