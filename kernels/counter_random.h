/* Random numbers that are a function of a key and a counter: no state, the same in any batch and order.

   SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) gives 64 bits for each counter, and
   the method of Box and Muller (1958) two normal numbers from them, with polynomials for sine and cosine
   that are right to 1e-11 (float32: to rounding), so that CPU and GPU draw the same. */

INLINE unsigned long long random_bits(unsigned long long key, unsigned long long counter)
{
    unsigned long long z = key + (counter + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

/* sin(h) and cos(h) for |h| <= pi/2: Taylor polynomials, whose next terms are below 1e-11. */
INLINE real half_turn_sine(real h)
{
    real z = h * h, p = R(-7.6471637318198164759e-13);
    p = MUL_ADD(p, z, R(1.6059043836821614599e-10));
    p = MUL_ADD(p, z, R(-2.5052108385441718775e-8));
    p = MUL_ADD(p, z, R(2.7557319223985890653e-6));
    p = MUL_ADD(p, z, R(-1.9841269841269841270e-4));
    p = MUL_ADD(p, z, R(8.3333333333333333333e-3));
    p = MUL_ADD(p, z, R(-0.16666666666666666667));
    return MUL_ADD(p * z, h, h);
}

INLINE real half_turn_cosine(real h)
{
    real z = h * h, p = R(4.7794773323873852974e-14);
    p = MUL_ADD(p, z, R(-1.1470745597729724714e-11));
    p = MUL_ADD(p, z, R(2.0876756987868098979e-9));
    p = MUL_ADD(p, z, R(-2.7557319223985890653e-7));
    p = MUL_ADD(p, z, R(2.4801587301587301587e-5));
    p = MUL_ADD(p, z, R(-1.3888888888888888889e-3));
    p = MUL_ADD(p, z, R(4.1666666666666666667e-2));
    p = MUL_ADD(p, z, R(-0.5));
    return MUL_ADD(p, z, R(1));
}

/* Two independent normal numbers. */
INLINE void random_normal(unsigned long long key, unsigned long long counter, real *first, real *second)
{
    unsigned long long bits = random_bits(key, counter);
    real inside = ((real)(bits >> 32) + R(0.5)) * R(2.3283064365386963e-10); /* 2^-32: never 0 */
    real turn = (real)(bits & 0xFFFFFFFFULL) * R(2.3283064365386963e-10) - R(0.5);
    real radius = hp_sqrt(R(-2) * hp_log(hp_min(inside, R(1))));
    real half = R(3.14159265358979323846) * turn;
    real sine = half_turn_sine(half), cosine = half_turn_cosine(half);
    *first = radius * MUL_ADD(R(-2) * sine, sine, R(1));
    *second = radius * R(2) * sine * cosine;
}
