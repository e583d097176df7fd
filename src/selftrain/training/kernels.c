// Norms and gates of a Llama-type decoder's training on a CPU, forwards and backwards: pieces.py calls them.
//
//   norm, norm_back        RMS norm of fp32 rows, written in the type that the products after it take
//   swiglu, swiglu_back    silu(gate) * up
//
// Where torch rounds to bf16 between two operations, so do these. numbers.h stands before this source.

#include <omp.h>

static inline float sigmoid(float x) {
    float power = exp_below_zero(x < 0.0f ? x : -x);
    return (x < 0.0f ? power : 1.0f) / (1.0f + power);
}

#define DEFINE(NAME, T, LOAD, STORE)                                                                                   \
    /* out = weight * x / rms(x); inverse [rows] = 1 / rms, for the way back. */                                       \
    void norm_##NAME(const float *x, const float *weight, T *out, float *inverse, int64_t rows, int64_t size,          \
                     float eps, int threads) {                                                                         \
        _Pragma("omp parallel for num_threads(threads)") for (int64_t r = 0; r < rows; r++) {                          \
            const float *row = x + r * size;                                                                           \
            float squares = 0.0f;                                                                                      \
            for (int64_t d = 0; d < size; d++) squares += row[d] * row[d];                                             \
            float by = inverse[r] = 1.0f / sqrtf(squares / (float)size + eps);                                         \
            for (int64_t d = 0; d < size; d++) out[r * size + d] = STORE(weight[d] * (row[d] * by));                   \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* to_weight [threads * size] begins as zeros and ends as each thread's part. */                                   \
    void norm_back_##NAME(const T *grad, const float *x, const float *weight, const float *inverse, float *to_x,       \
                          float *to_weight, int64_t rows, int64_t size, int threads) {                                 \
        _Pragma("omp parallel num_threads(threads)") {                                                                 \
            float *part = to_weight + omp_get_thread_num() * size;                                                     \
            _Pragma("omp for schedule(static)") for (int64_t r = 0; r < rows; r++) {                                   \
                const float *row = x + r * size;                                                                       \
                const T *given = grad + r * size;                                                                      \
                float by = inverse[r], dot = 0.0f;                                                                     \
                for (int64_t d = 0; d < size; d++) dot += LOAD(given[d]) * weight[d] * row[d];                         \
                float back = dot * by * by * by / (float)size;                                                         \
                for (int64_t d = 0; d < size; d++) {                                                                   \
                    to_x[r * size + d] = LOAD(given[d]) * weight[d] * by - row[d] * back;                              \
                    part[d] += LOAD(given[d]) * row[d] * by;                                                           \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    void swiglu_##NAME(const T *gate, const T *up, T *out, int64_t count, int threads) {                               \
        _Pragma("omp parallel for num_threads(threads) schedule(static)") for (int64_t i = 0; i < count; i++) out[i] = \
            STORE(LOAD(STORE(silu(LOAD(gate[i])))) * LOAD(up[i]));                                                     \
    }                                                                                                                  \
                                                                                                                       \
    void swiglu_back_##NAME(const T *grad, const T *gate, const T *up, T *to_gate, T *to_up, int64_t count,            \
                            int threads) {                                                                             \
        _Pragma("omp parallel for num_threads(threads) schedule(static)") for (int64_t i = 0; i < count; i++) {        \
            float x = LOAD(gate[i]), given = LOAD(grad[i]), open = sigmoid(x);                                         \
            to_up[i] = STORE(given * LOAD(STORE(x * open)));                                                           \
            to_gate[i] = STORE(LOAD(STORE(given * LOAD(up[i]))) * open * (1.0f + x * (1.0f - open)));                  \
        }                                                                                                              \
    }

DEFINE(fp32, float, load_fp32, store_fp32)
DEFINE(bf16, uint16_t, load_bf16, store_bf16)
