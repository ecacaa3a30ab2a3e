/* hpcmsm.h: one source for CPU and GPU.

   Put in front of every kernel file by hpcmsm.kernels; kernel files include nothing and have no #ifdef.
   What each macro means to the author of a kernel is written in kernels/README.md. */

#ifdef HPCMSM_FLOAT32
typedef float real;
typedef unsigned int hp_word; /* the bits of a real */
#else
typedef double real;
typedef unsigned long long hp_word;
#endif
typedef unsigned char byte;

#define R(constant) ((real)(constant))

#ifdef __CUDACC__ /* ------------------------------------------------------------------- GPU (NVRTC) */

#define KERNEL extern "C" __global__ void
#define INLINE static __device__ __forceinline__
#define SEPARATE static __device__ __noinline__

/* Names of their own, since x may be the name of an index in the macros below. */
#define HP_MEMBER ((long)threadIdx.x)
#define HP_MEMBERS ((long)blockDim.x)
#define HP_BLOCK ((long)blockIdx.x)
#define HP_BLOCKS ((long)gridDim.x)
#define HP_FIRST ((long)blockIdx.x * blockDim.x + threadIdx.x)
#define HP_STRIDE ((long)gridDim.x * blockDim.x)
#define FOR_EACH_CELL(c, ncells) for (long c = HP_FIRST; c < (ncells); c += HP_STRIDE)
#define FOR_EACH_CELL_2D(x, y, nx, ny)                                              \
    for (long hp_cell = HP_FIRST; hp_cell < (long)(nx) * (ny); hp_cell += HP_STRIDE) \
        for (long x = hp_cell % (nx), y = hp_cell / (nx), hp_once = 1; hp_once; hp_once = 0)
#define FOR_EACH_CELL_3D(x, y, z, nx, ny, nz)                                               \
    for (long hp_cell = HP_FIRST; hp_cell < (long)(nx) * (ny) * (nz); hp_cell += HP_STRIDE) \
        for (long x = hp_cell % (nx), y = hp_cell / (nx) % (ny), z = hp_cell / (nx) / (ny), hp_once = 1; \
             hp_once; hp_once = 0)

#define FOR_EACH_ROW(row, nrows) for (long row = HP_BLOCK; row < (nrows); row += HP_BLOCKS)
#define FOR_EACH_IN_ROW(x, first, last) for (long x = (first) + HP_MEMBER; x < (last); x += HP_MEMBERS)
#define ROW_BARRIER __syncthreads()
#define ROW_ONCE if (HP_MEMBER == 0)
#define STRIP 1
#define FOR_EACH_STRIP(first, n) for (long first = HP_MEMBER; first < (n); first += HP_MEMBERS)
#define FOR_EACH_IN_STRIP(i, count) for (long i = 0; i < (count); ++i)
#define FETCH_AHEAD(array) ((void)0)
#define STORE_STRIP(to, values, count, past_caches) hp_store_strip(to, values, count)
#define STORED_PAST_CACHES ((void)0)

#define LANES 1
#define FOR_EACH_TEAM(team, ncells) for (long team = HP_BLOCK; team < (ncells); team += HP_BLOCKS)
#define FOR_EACH_POINT(i, npoint) for (long i = HP_MEMBER; i < (npoint); i += HP_MEMBERS)
#define FOR_EACH_POINT_2D(x, y, nx, ny)                                             \
    for (long hp_point = HP_MEMBER; hp_point < (long)(nx) * (ny); hp_point += HP_MEMBERS) \
        for (long x = hp_point % (nx), y = hp_point / (nx), hp_once = 1; hp_once; hp_once = 0)
#define FOR_EACH_POINT_3D(x, y, z, nx, ny, nz)                                              \
    for (long hp_point = HP_MEMBER; hp_point < (long)(nx) * (ny) * (nz); hp_point += HP_MEMBERS) \
        for (long x = hp_point % (nx), y = hp_point / (nx) % (ny), z = hp_point / (nx) / (ny), hp_once = 1; \
             hp_once; hp_once = 0)
#define FOR_EACH_LANE(l) for (int l = 0; l < 1; ++l)
#define UNROLLED _Pragma("unroll")
#define TEAM_BARRIER __syncthreads()
#define TEAM_SUM(values) ((values)[0] = hp_team_sum((values)[0]))
#define TEAM_MAX(values) ((values)[0] = hp_team_max((values)[0]))
#define TEAM_ONCE if (HP_MEMBER == 0)
#define TEAM_SCRATCH(scratch, size) hp_team_scratch(scratch, size)

/* The butterfly gives every thread the same bits, as a + b == b + a; warps are then added in order. */
template <typename number>
static __device__ number hp_team_sum(number value)
{
    __shared__ number parts[32];
    for (int distance = 16; distance > 0; distance >>= 1)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp)
        value += parts[warp];
    __syncthreads();
    return value;
}

template <typename number>
static __device__ number hp_team_max(number value)
{
    __shared__ number parts[32];
    for (int distance = 16; distance > 0; distance >>= 1) {
        number other = __shfl_xor_sync(0xffffffffu, value, distance);
        value = other > value ? other : value;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp)
        value = parts[warp] > value ? parts[warp] : value;
    __syncthreads();
    return value;
}

/* The engine passes a null pointer for scratch where the team's share fits into shared memory. */
template <typename number>
static __device__ number *hp_team_scratch(number *scratch, long size)
{
    extern __shared__ __align__(16) double hp_shared[];
    return scratch ? scratch + blockIdx.x * size : (number *)hp_shared;
}

INLINE float hp_fma_float(float a, float b, float c) { return __fmaf_rn(a, b, c); }
#ifdef HPCMSM_FLOAT32
INLINE real hp_fma(real a, real b, real c) { return __fmaf_rn(a, b, c); }
INLINE hp_word hp_bits(real x) { return __float_as_uint(x); }
INLINE real hp_number(hp_word bits) { return __uint_as_float(bits); }
INLINE real hp_sqrt(real x) { return __fsqrt_rn(x); }
INLINE real hp_abs(real x) { return fabsf(x); }
INLINE real hp_copysign(real size, real sign) { return copysignf(size, sign); }
#else
INLINE real hp_fma(real a, real b, real c) { return __fma_rn(a, b, c); }
INLINE hp_word hp_bits(real x) { return (hp_word)__double_as_longlong(x); }
INLINE real hp_number(hp_word bits) { return __longlong_as_double((long long)bits); }
INLINE real hp_sqrt(real x) { return __dsqrt_rn(x); }
INLINE real hp_abs(real x) { return fabs(x); }
INLINE real hp_copysign(real size, real sign) { return copysign(size, sign); }
#endif

#else /* -------------------------------------------------------------------------------- CPU (C11) */

#define KERNEL __attribute__((visibility("default"))) void
#define INLINE static inline __attribute__((always_inline, unused))
#define SEPARATE static __attribute__((noinline, unused))

/* Set by the engine; without -fopenmp the parallel pragmas are only "omp simd". */
__attribute__((visibility("default"))) int hpcmsm_threads = 1;
#ifdef _OPENMP
int omp_get_thread_num(void);
#define HP_THREAD omp_get_thread_num()
#else
#define HP_THREAD 0
#endif
#define HP_PRAGMA(text) _Pragma(#text)
/* Without OpenMP nothing at all: gcc takes a pragma that it ignores for the statement of an `if` before it. */
#ifdef _OPENMP
#define HP_PARALLEL(clauses) HP_PRAGMA(omp parallel for clauses num_threads(hpcmsm_threads))
#else
#define HP_PARALLEL(clauses)
#endif

#define FOR_EACH_CELL(c, ncells)                                              \
    HP_PRAGMA(omp parallel for simd schedule(static) num_threads(hpcmsm_threads)) \
    for (long c = 0; c < (ncells); ++c)
#define FOR_EACH_CELL_2D(x, y, nx, ny)     \
    HP_PARALLEL(schedule(static))          \
    for (long y = 0; y < (ny); ++y)        \
        HP_PRAGMA(omp simd)                \
        for (long x = 0; x < (nx); ++x)
#define FOR_EACH_CELL_3D(x, y, z, nx, ny, nz)  \
    HP_PARALLEL(collapse(2) schedule(static))  \
    for (long z = 0; z < (nz); ++z)            \
        for (long y = 0; y < (ny); ++y)        \
            HP_PRAGMA(omp simd)                \
            for (long x = 0; x < (nx); ++x)

#define FOR_EACH_ROW(row, nrows)  \
    HP_PARALLEL(schedule(static)) \
    for (long row = 0; row < (nrows); ++row)
#define FOR_EACH_IN_ROW(x, first, last) HP_PRAGMA(omp simd) for (long x = (first); x < (last); ++x)
#define ROW_BARRIER ((void)0)
#define ROW_ONCE
#define STRIP (128 / (long)sizeof(real))
#define FOR_EACH_STRIP(first, n) \
    for (long first = 0; first < (n); first += hp_strip_step((n) - first - STRIP))
#define FOR_EACH_IN_STRIP(i, count) HP_PRAGMA(omp simd) for (long i = 0; i < (count); ++i)
#define FETCH_AHEAD(array) hp_fetch_ahead(array)
#define STORE_STRIP(to, values, count, past_caches) \
    ((past_caches) ? hp_store_past_caches(to, values, count) : hp_store_strip(to, values, count))
#define STORED_PAST_CACHES hp_stored_past_caches()

#ifndef LANES
#define LANES (64 / (int)sizeof(real))
#endif
__attribute__((visibility("default"))) const int hpcmsm_lanes = LANES; /* read by the engine */
#define FOR_EACH_TEAM(team, ncells)  \
    HP_PARALLEL(schedule(dynamic))   \
    for (long team = 0; team < ((ncells) + LANES - 1) / LANES; ++team)
#define FOR_EACH_POINT(i, npoint) for (long i = 0; i < (npoint); ++i)
#define FOR_EACH_POINT_2D(x, y, nx, ny) \
    for (long y = 0; y < (ny); ++y)     \
        for (long x = 0; x < (nx); ++x)
#define FOR_EACH_POINT_3D(x, y, z, nx, ny, nz) \
    for (long z = 0; z < (nz); ++z)            \
        for (long y = 0; y < (ny); ++y)        \
            for (long x = 0; x < (nx); ++x)
#define FOR_EACH_LANE(l) HP_PRAGMA(omp simd) for (int l = 0; l < LANES; ++l)
#define UNROLLED HP_PRAGMA(GCC unroll 16)
#define TEAM_BARRIER ((void)0)
#define TEAM_SUM(values) ((void)(values))
#define TEAM_MAX(values) ((void)(values))
#define TEAM_ONCE
#define TEAM_SCRATCH(scratch, size) ((scratch) + HP_THREAD * (size) * LANES)

#ifdef HPCMSM_FLOAT32
#define HP_BUILTIN(name) __builtin_##name##f
#else
#define HP_BUILTIN(name) __builtin_##name
#endif
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
INLINE real hp_fma(real a, real b, real c) { return HP_BUILTIN(fma)(a, b, c); }
INLINE float hp_fma_float(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
INLINE real hp_fma(real a, real b, real c) { return a * b + c; }
INLINE float hp_fma_float(float a, float b, float c) { return a * b + c; }
#endif
INLINE hp_word hp_bits(real x)
{
    hp_word bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}
INLINE real hp_number(hp_word bits)
{
    real x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}
INLINE real hp_sqrt(real x) { return HP_BUILTIN(sqrt)(x); }
INLINE real hp_abs(real x) { return HP_BUILTIN(fabs)(x); }
INLINE real hp_copysign(real size, real sign) { return HP_BUILTIN(copysign)(size, sign); }

/* By how far to go on where so many cells are left behind a strip: the last one may begin in the one before. */
INLINE long hp_strip_step(long rest) { return rest > 0 && rest < STRIP ? rest : STRIP; }

/* The processor by itself asks memory for what comes next too late and stops at the end of a page. So ask for
   the lines of a strip a page ahead, into the second cache. Nothing is read: it may be beyond the array. */
INLINE void hp_fetch_ahead(const real *array)
{
    for (unsigned long line = 0; line < STRIP * sizeof(real); line += 64)
        __builtin_prefetch((const void *)((unsigned long)array + 4096 + line), 0, 2);
}

/* Past the caches, which would read every line from memory before it is written. */
#ifdef __SSE2__
#include <emmintrin.h>
INLINE void hp_store_past_caches(real *to, const real *values, long count)
{
    const long pair = 16 / sizeof(real);
    long i = 0;
    if ((unsigned long)to % 16 == 0)
        for (; i + pair <= count; i += pair)
            _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(values + i)));
    for (; i < count; ++i)
#ifdef HPCMSM_FLOAT32
        _mm_stream_si32((int *)(to + i), (int)hp_bits(values[i]));
#else
        _mm_stream_si64((long long *)(to + i), (long long)hp_bits(values[i]));
#endif
}
/* Before another rank may read it. What the threads of one call have written is out when their loop ends: its
   barrier is a locked instruction, which empties the buffers on the way to memory. */
INLINE void hp_stored_past_caches(void) { _mm_sfence(); }
#else
INLINE void hp_store_past_caches(real *to, const real *values, long count)
{
    for (long i = 0; i < count; ++i)
        to[i] = values[i];
}
INLINE void hp_stored_past_caches(void) {}
#endif

#endif /* ------------------------------------------------------------------------------- common */

#define MUL_ADD(a, b, c) hp_fma(a, b, c)
#define MUL_ADD_FLOAT(a, b, c) hp_fma_float(a, b, c)
#define CELL_OF(team, l, ncells) hp_min_long((team) * LANES + (l), (ncells) - 1)
#define HAS_CELL(team, l, ncells) ((team) * LANES + (l) < (ncells))

INLINE void hp_store_strip(real *to, const real *values, long count)
{
    for (long i = 0; i < count; ++i)
        to[i] = values[i];
}

INLINE int hp_lanes_any(const int *active)
{
    int any = 0;
    for (int l = 0; l < LANES; ++l)
        any |= active[l];
    return any;
}
#define LANES_ANY(active) hp_lanes_any(active)

INLINE long hp_min_long(long a, long b) { return a < b ? a : b; }
INLINE real hp_min(real a, real b) { return a < b ? a : b; }
INLINE real hp_max(real a, real b) { return a > b ? a : b; }

/* Elementary functions without a branch or a library call, so that loops over cells vectorise and CPU
   and GPU evaluate one formula. x = n ln 2 + r; adding HP_SHIFT rounds to an integer, which then stands in
   the low bits. Coefficients: interpolation at Chebyshev nodes (50 digits), of (exp(r) - 1 - r) / r^2 for
   |r| < ln(2)/2 and of (log((1+s)/(1-s)) / s - 2) / s^2 for s < 3 - sqrt(8). */

#ifdef HPCMSM_FLOAT32
#define HP_SHIFT 12582912.0f
#define HP_MANTISSA 23
#define HP_BIAS 127
#define HP_LN2_HIGH 0.693359375f
#define HP_LN2_LOW -2.12194440e-4f
#define HP_EXP_LOWEST -105.0f
#define HP_EXP_HIGHEST 89.0f
#define HP_SMALLEST 1.17549435e-38f
#define HP_LARGEST 3.40282347e38f
#define HP_SCALE_UP 16777216.0f
#define HP_SCALE_UP_LOG2 24
INLINE real hp_exp_tail(real r)
{
    real q = R(0.001392625083149761172);
    q = hp_fma(q, r, R(0.008363232883682618204));
    q = hp_fma(q, r, R(0.04166655421298415031));
    q = hp_fma(q, r, R(0.1666657666611992831));
    return hp_fma(q, r, R(0.5));
}
INLINE real hp_log_tail(real z)
{
    real p = hp_fma(R(0.2958098592997442262), z, R(0.39988757716604847));
    return hp_fma(p, z, R(0.6666668509542906875));
}
#else
#define HP_SHIFT 6755399441055744.0
#define HP_MANTISSA 52
#define HP_BIAS 1023
#define HP_LN2_HIGH 6.93147180369123816490e-01
#define HP_LN2_LOW 1.90821492927058770002e-10
#define HP_EXP_LOWEST -746.0
#define HP_EXP_HIGHEST 710.0
#define HP_SMALLEST 2.2250738585072014e-308
#define HP_LARGEST 1.7976931348623157e308
#define HP_SCALE_UP 18014398509481984.0
#define HP_SCALE_UP_LOG2 54
INLINE real hp_exp_tail(real r)
{
    real q = R(2.5100472505694996e-8);
    q = hp_fma(q, r, R(2.762020159103154879e-7));
    q = hp_fma(q, r, R(2.755726827690569619e-6));
    q = hp_fma(q, r, R(2.48015210578682052e-5));
    q = hp_fma(q, r, R(1.984126986317155603e-4));
    q = hp_fma(q, r, R(1.388888891736708056e-3));
    q = hp_fma(q, r, R(8.333333333330038197e-3));
    q = hp_fma(q, r, R(4.166666666662382053e-2));
    q = hp_fma(q, r, R(0.1666666666666666746));
    return hp_fma(q, r, R(0.5));
}
INLINE real hp_log_tail(real z)
{
    real p = R(0.1461780715341732496);
    p = hp_fma(p, z, R(0.1533161172205500789));
    p = hp_fma(p, z, R(0.181828924325368712));
    p = hp_fma(p, z, R(0.2222221108937949621));
    p = hp_fma(p, z, R(0.2857142862625383761));
    p = hp_fma(p, z, R(0.3999999999989889051));
    return hp_fma(p, z, R(0.6666666666666669708));
}
#endif

/* 2^n for the integer that stands in the low bits of shifted = n + HP_SHIFT. */
#define HP_POWER_OF_2(shifted) hp_number((hp_bits(shifted) << HP_MANTISSA) + hp_bits(R(1)))

INLINE real hp_exp(real x)
{
    real inside = x > HP_EXP_HIGHEST ? HP_EXP_HIGHEST : x; /* a NaN fails both tests and stays */
    inside = inside < HP_EXP_LOWEST ? HP_EXP_LOWEST : inside;
    real n = hp_fma(inside, R(1.4426950408889634074), HP_SHIFT) - HP_SHIFT;
    real r = hp_fma(n, -HP_LN2_LOW, hp_fma(n, -HP_LN2_HIGH, inside));
    real p = hp_fma(r * r, hp_exp_tail(r), r) + R(1);
    /* 2^n as a product of two, so that n may reach beyond the exponents of normal numbers. */
    real half = hp_fma(n, R(0.5), HP_SHIFT);
    real rest = n - (half - HP_SHIFT) + HP_SHIFT;
    return p * HP_POWER_OF_2(half) * HP_POWER_OF_2(rest);
}

INLINE real hp_tanh(real x)
{
    /* tanh x = e / (e + 2), e = exp(2 |x|) - 1 without cancellation. */
    real twice = hp_abs(x) > R(20) ? R(40) : R(2) * hp_abs(x);
    real n = hp_fma(twice, R(1.4426950408889634074), HP_SHIFT) - HP_SHIFT;
    real r = hp_fma(n, -HP_LN2_LOW, hp_fma(n, -HP_LN2_HIGH, twice));
    real scale = HP_POWER_OF_2(n + HP_SHIFT);
    real e = hp_fma(scale, hp_fma(r * r, hp_exp_tail(r), r), scale - R(1));
    return hp_copysign(e / (e + R(2)), x);
}

INLINE real hp_log(real x)
{
    real scaled = x < HP_SMALLEST ? x * HP_SCALE_UP : x;
    real lift = x < HP_SMALLEST ? R(HP_SCALE_UP_LOG2) : R(0);
    /* scaled = 2^k m; the exponent is read as the low bits of HP_SHIFT + exponent, which vectorises
       where a conversion of integers does not. */
    hp_word bits = hp_bits(scaled);
    real k = hp_number((bits >> HP_MANTISSA) + hp_bits(HP_SHIFT)) - HP_SHIFT - (R(HP_BIAS) + lift);
    real m = hp_number((bits & (((hp_word)1 << HP_MANTISSA) - 1)) | hp_bits(R(1)));
    k = m > R(1.4142135623730951) ? k + R(1) : k;
    m = m > R(1.4142135623730951) ? m * R(0.5) : m;
    real f = m - R(1);
    real s = f / (f + R(2));
    real z = s * s;
    real value = k * HP_LN2_HIGH - ((s * (f - z * hp_log_tail(z)) - k * HP_LN2_LOW) - f);
    value = x > HP_LARGEST ? x : value;
    value = x == 0 ? -1 / hp_abs(x) : value;
    return x >= 0 ? value : (x - x) / (x - x); /* a NaN for negative numbers and NaNs */
}
