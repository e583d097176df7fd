// What lies between the matrix products of a Llama-type decoder's step, on a CPU: kernels.py compiles and calls it.
//
//   attend     rotary positions, the new keys and values stored, attention of each token over its slot
//   look       the attention alone, with a bias by distance where there is one (T5)
//   add_norm   hidden += delta; out = RMS norm of hidden
//   gate       silu(gate) * up
//
// All come for fp32 and for bf16 storage. Sums are fp32; where torch rounds to bf16 between two operations, so do these.
// WIDTH, the size of a head, is given at compile time. numbers.h stands before this source.

#include <stdlib.h>

#define MAX_GROUP 16

// Rotary positions of one head, at `turned`: x * cos + (-second half, first half) * sin.
#define ROTATE(T, LOAD, STORE, x, cos, sin, turned)                                                                    \
    for (int64_t d = 0; d < WIDTH; d++) {                                                                              \
        float other = d < WIDTH / 2 ? -LOAD(x[d + WIDTH / 2]) : LOAD(x[d - WIDTH / 2]);                                \
        float straight = LOAD(STORE(LOAD(x[d]) * LOAD(cos[d]))), crossed = LOAD(STORE(other * LOAD(sin[d])));          \
        turned[d] = STORE(straight + crossed);                                                                         \
    }

#define DEFINE(NAME, T, LOAD, STORE)                                                                                   \
    /* One key head: `group` query heads over `length` positions. `bias`, or NULL: for each of these heads `room`      \
       numbers, added by how far back a position lies. scores: room for group * length numbers. */                     \
    static void look_head_##NAME(const T *query, const T *keys, const T *values, const T *bias, T *out,                \
                                 int64_t length, int64_t group, int64_t room, float scale, float *scores) {            \
        float q[MAX_GROUP][WIDTH], sums[MAX_GROUP][WIDTH], row[WIDTH];                                                 \
        for (int64_t g = 0; g < group; g++)                                                                            \
            for (int64_t d = 0; d < WIDTH; d++) {                                                                      \
                q[g][d] = LOAD(query[g * WIDTH + d]) * scale;                                                          \
                sums[g][d] = 0.0f;                                                                                     \
            }                                                                                                          \
        for (int64_t t = 0; t < length; t++) {                                                                         \
            for (int64_t d = 0; d < WIDTH; d++) row[d] = LOAD(keys[t * WIDTH + d]);                                    \
            for (int64_t g = 0; g < group; g++) {                                                                      \
                float dot = 0.0f;                                                                                      \
                for (int64_t d = 0; d < WIDTH; d++) dot += q[g][d] * row[d];                                           \
                scores[g * length + t] = dot;                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t g = 0; g < group; g++) {                                                                          \
            float *s = scores + g * length, sum = 0.0f;                                                                \
            if (bias != NULL)                                                                                          \
                for (int64_t t = 0; t < length; t++) s[t] += LOAD(bias[g * room + length - 1 - t]);                    \
            float most = s[0];                                                                                         \
            for (int64_t t = 1; t < length; t++) most = s[t] > most ? s[t] : most;                                     \
            for (int64_t t = 0; t < length; t++) {                                                                     \
                s[t] = exp_below_zero(s[t] - most);                                                                    \
                sum += s[t];                                                                                           \
            }                                                                                                          \
            for (int64_t t = 0; t < length; t++) s[t] /= sum;                                                          \
        }                                                                                                              \
        for (int64_t t = 0; t < length; t++) {                                                                         \
            for (int64_t d = 0; d < WIDTH; d++) row[d] = LOAD(values[t * WIDTH + d]);                                  \
            for (int64_t g = 0; g < group; g++) {                                                                      \
                float weight = scores[g * length + t];                                                                 \
                for (int64_t d = 0; d < WIDTH; d++) sums[g][d] += weight * row[d];                                     \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t g = 0; g < group; g++)                                                                            \
            for (int64_t d = 0; d < WIDTH; d++) out[g * WIDTH + d] = STORE(sums[g][d]);                                \
    }                                                                                                                  \
                                                                                                                       \
    int attend_##NAME(const T *projected, const T *cos, const T *sin, T *keys, T *values, T *out,                      \
                      const int64_t *slots, const int64_t *positions, int64_t tokens, int64_t heads, int64_t group,    \
                      int64_t room, int threads) {                                                                     \
        int failed = 0;                                                                                                \
        int64_t row = (heads * group + 2 * heads) * WIDTH;                                                             \
        _Pragma("omp parallel num_threads(threads)") {                                                                 \
            float *scores = malloc(sizeof(float) * (size_t)(group * room));                                            \
            if (scores == NULL) {                                                                                      \
                _Pragma("omp atomic write") failed = 1;                                                                \
            }                                                                                                          \
            _Pragma("omp for schedule(static)") for (int64_t i = 0; i < tokens * heads; i++) {                         \
                int64_t n = i / heads, h = i % heads, place = ((slots[n] * heads + h) * room + positions[n]) * WIDTH;  \
                const T *key = projected + n * row + (heads * group + h) * WIDTH, *value = key + heads * WIDTH;        \
                const T *c = cos + positions[n] * WIDTH, *s = sin + positions[n] * WIDTH;                              \
                ROTATE(T, LOAD, STORE, key, c, s, (keys + place))                                                      \
                memcpy(values + place, value, sizeof(T) * WIDTH);                                                      \
            }                                                                                                          \
            _Pragma("omp for schedule(dynamic, 8)") for (int64_t i = 0; i < tokens * heads; i++) {                     \
                if (scores == NULL) continue;                                                                          \
                int64_t n = i / heads, h = i % heads, place = (slots[n] * heads + h) * room * WIDTH;                   \
                const T *asked = projected + n * row + h * group * WIDTH;                                              \
                const T *c = cos + positions[n] * WIDTH, *s = sin + positions[n] * WIDTH;                              \
                T query[MAX_GROUP * WIDTH];                                                                            \
                for (int64_t g = 0; g < group; g++) {                                                                  \
                    ROTATE(T, LOAD, STORE, (asked + g * WIDTH), c, s, (query + g * WIDTH))                             \
                }                                                                                                      \
                look_head_##NAME(query, keys + place, values + place, NULL, out + i * group * WIDTH,                   \
                                 positions[n] + 1, group, room, 1.0f / sqrtf((float)WIDTH), scores);                   \
            }                                                                                                          \
            free(scores);                                                                                              \
        }                                                                                                              \
        return failed;                                                                                                 \
    }                                                                                                                  \
                                                                                                                       \
    int look_##NAME(const T *query, const T *keys, const T *values, const T *bias, T *out, const int64_t *slots,       \
                    const int64_t *lengths, int64_t tokens, int64_t heads, int64_t group, int64_t room, float scale,   \
                    int threads) {                                                                                     \
        int failed = 0;                                                                                                \
        _Pragma("omp parallel num_threads(threads)") {                                                                 \
            float *scores = malloc(sizeof(float) * (size_t)(group * room));                                            \
            if (scores == NULL) {                                                                                      \
                _Pragma("omp atomic write") failed = 1;                                                                \
            }                                                                                                          \
            _Pragma("omp for schedule(dynamic, 8)") for (int64_t i = 0; i < tokens * heads; i++) {                     \
                if (scores == NULL) continue;                                                                          \
                int64_t n = i / heads, h = i % heads, place = (slots[n] * heads + h) * room * WIDTH;                   \
                look_head_##NAME(query + i * group * WIDTH, keys + place, values + place,                              \
                                 bias == NULL ? NULL : bias + h * group * room, out + i * group * WIDTH, lengths[n],   \
                                 group, room, scale, scores);                                                          \
            }                                                                                                          \
            free(scores);                                                                                              \
        }                                                                                                              \
        return failed;                                                                                                 \
    }                                                                                                                  \
                                                                                                                       \
    void add_norm_##NAME(T *hidden, const T *delta, const T *weight, T *out, int64_t rows, int64_t size, float eps,    \
                         int threads) {                                                                                \
        _Pragma("omp parallel for num_threads(threads)") for (int64_t r = 0; r < rows; r++) {                          \
            T *x = hidden + r * size, *y = out + r * size;                                                             \
            float squares = 0.0f;                                                                                      \
            if (delta != NULL)                                                                                         \
                for (int64_t d = 0; d < size; d++) x[d] = STORE(LOAD(x[d]) + LOAD(delta[r * size + d]));               \
            for (int64_t d = 0; d < size; d++) squares += LOAD(x[d]) * LOAD(x[d]);                                     \
            float inverse = 1.0f / sqrtf(squares / (float)size + eps);                                                 \
            for (int64_t d = 0; d < size; d++) y[d] = STORE(LOAD(weight[d]) * LOAD(STORE(LOAD(x[d]) * inverse)));      \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    void gate_##NAME(const T *gate_up, T *out, int64_t rows, int64_t size, int threads) {                              \
        _Pragma("omp parallel for num_threads(threads)") for (int64_t r = 0; r < rows; r++) {                          \
            const T *gate = gate_up + 2 * r * size, *up = gate + size;                                                 \
            for (int64_t d = 0; d < size; d++)                                                                         \
                out[r * size + d] = STORE(LOAD(STORE(silu(LOAD(gate[d])))) * LOAD(up[d]));                             \
        }                                                                                                              \
    }

DEFINE(fp32, float, load_fp32, store_fp32)
DEFINE(bf16, uint16_t, load_bf16, store_bf16)
