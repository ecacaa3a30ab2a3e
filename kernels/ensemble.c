/* Inference of an ensemble of small networks, from inputs to mean and spread in one pass.

   Every member is x -> W_L tanh(... tanh(W_1 x + b_1) ...) + b_L on standardised inputs; its outputs,
   scaled back, are fields in the form in which they are learnt: a tensor as its Cholesky factor
   K = L D L' (logarithms of D, then the entries of L below its unit diagonal), so that K is positive
   definite whatever the network says.

   Lanes are cells: a cell's sums run in one order in any batch. A point is two blocks of NEURONS neurons
   of one member; their sums stay in registers while the weights pass by once for all lanes. Widths are
   padded to whole blocks with neurons of weight zero.

   Weights of a member: for each layer, for each block, [1 + width below][NEURONS], biases first. */

#define NEURONS 4
#define LINEAR 0   /* kinds of output fields */
#define TENSOR_2D 1
#define TENSOR_3D 2

#define BLOCKS(width) (((width) + NEURONS - 1) / NEURONS)
#define AT(row) ((row) * LANES + l)

#define SIGN hp_bits(R(-0.0))
#define LOWEST (hp_bits(R(HP_SHIFT - 58)) ^ SIGN)
#define HIGHEST (hp_bits(R(HP_SHIFT + 58)) ^ SIGN)

/* tanh x: with 2x = n ln 2 + 2r, s = 2^n and tanh r = p/q it is (s (q+p) - (q-p)) / (s (q+p) + (q-p)):
   one short rational function instead of an exponential. p/q interpolates tanh(r)/r at 4 Chebyshev nodes
   in r^2 on |r| < 1.01 ln(2)/4, with 50 digits (relative error 2e-17). The absolute error stays below 4e-16,
   which is all that sums of neurons see. n stands in the low bits of a number near HP_SHIFT; with the sign
   bit turned these bits order as x does, so that n is bounded without comparing x: 5 % of the whole time.
   From 1e70 on the answer may be NaN, as it is for NaN and infinity. */
INLINE real squash(real x)
{
    real shifted = MUL_ADD(x, R(2.885390081777926815), HP_SHIFT);
    hp_word n = hp_bits(shifted) ^ SIGN;
    n = n < LOWEST ? LOWEST : n;
    n = n > HIGHEST ? HIGHEST : n;
    real s = hp_number((n << HP_MANTISSA) + hp_bits(R(1)));
    real r = MUL_ADD(shifted - HP_SHIFT, R(-0.34657359027997265471), x);
    real z = r * r;
    real p = MUL_ADD(MUL_ADD(R(0.0010575464883614326968), z, R(0.11110128719196405925)), z, R(1)) * r;
    real q = MUL_ADD(MUL_ADD(R(0.015869086664191371567), z, R(0.44443462052529669311)), z, R(1));
    real more = q + p, less = q - p;
    return MUL_ADD(s, more, -less) / MUL_ADD(s, more, less);
}

/* Sums of one block of neurons over the layer below. */
INLINE void add_up(const real *weights, const real *below, long nbelow, real *out)
{
    FOR_EACH_LANE(l) {
        real s0 = weights[0], s1 = weights[1], s2 = weights[2], s3 = weights[3];
        const real *w = weights + NEURONS;
        long k = 0;
        do { /* at least one turn: the compiler then vectorises around this loop */
            real value = below[AT(k)];
            s0 = MUL_ADD(w[NEURONS * k], value, s0);
            s1 = MUL_ADD(w[NEURONS * k + 1], value, s1);
            s2 = MUL_ADD(w[NEURONS * k + 2], value, s2);
            s3 = MUL_ADD(w[NEURONS * k + 3], value, s3);
        } while (++k < nbelow);
        out[AT(0)] = s0;
        out[AT(1)] = s1;
        out[AT(2)] = s2;
        out[AT(3)] = s3;
    }
}

/* The same for two blocks, so that each value is loaded once for eight sums: a tenth faster. */
INLINE void add_up_two(const real *weights, const real *below, long nbelow, real *out)
{
    FOR_EACH_LANE(l) {
        const real *w = weights + NEURONS, *other = weights + NEURONS * (nbelow + 1), *v = other + NEURONS;
        real s0 = weights[0], s1 = weights[1], s2 = weights[2], s3 = weights[3];
        real t0 = other[0], t1 = other[1], t2 = other[2], t3 = other[3];
        long k = 0;
        do {
            real value = below[AT(k)];
            s0 = MUL_ADD(w[NEURONS * k], value, s0);
            s1 = MUL_ADD(w[NEURONS * k + 1], value, s1);
            s2 = MUL_ADD(w[NEURONS * k + 2], value, s2);
            s3 = MUL_ADD(w[NEURONS * k + 3], value, s3);
            t0 = MUL_ADD(v[NEURONS * k], value, t0);
            t1 = MUL_ADD(v[NEURONS * k + 1], value, t1);
            t2 = MUL_ADD(v[NEURONS * k + 2], value, t2);
            t3 = MUL_ADD(v[NEURONS * k + 3], value, t3);
        } while (++k < nbelow);
        out[AT(0)] = s0;
        out[AT(1)] = s1;
        out[AT(2)] = s2;
        out[AT(3)] = s3;
        out[AT(4)] = t0;
        out[AT(5)] = t1;
        out[AT(6)] = t2;
        out[AT(7)] = t3;
    }
}

/* A layer's values at one point: two blocks of a member, or one where no second is left. */
INLINE void layer_point(const real *weights, const real *below, long nbelow, long nblock, int is_last, real *out)
{
    if (nblock == 1)
        add_up(weights, below, nbelow, out);
    else
        add_up_two(weights, below, nbelow, out);
    if (!is_last)
        for (long j = 0; j < nblock * NEURONS; ++j)
            FOR_EACH_LANE(l) out[AT(j)] = squash(out[AT(j)]);
}

/* From what is learnt to the components xx yy xy, in place. */
INLINE void compose_2d(real *z)
{
    FOR_EACH_LANE(l) {
        real d1 = hp_exp(z[AT(0)]), d2 = hp_exp(z[AT(1)]), l21 = z[AT(2)];
        real xy = l21 * d1;
        z[AT(0)] = d1;
        z[AT(1)] = MUL_ADD(l21, xy, d2);
        z[AT(2)] = xy;
    }
}

/* The same for xx yy zz yz xz xy from ln d1, ln d2, ln d3, l32, l31, l21. */
INLINE void compose_3d(real *z)
{
    FOR_EACH_LANE(l) {
        real d1 = hp_exp(z[AT(0)]), d2 = hp_exp(z[AT(1)]), d3 = hp_exp(z[AT(2)]);
        real l32 = z[AT(3)], l31 = z[AT(4)], l21 = z[AT(5)];
        real xy = l21 * d1, xz = l31 * d1, below = l32 * d2;
        z[AT(0)] = d1;
        z[AT(1)] = MUL_ADD(l21, xy, d2);
        z[AT(2)] = MUL_ADD(l32, below, MUL_ADD(l31, xz, d3));
        z[AT(3)] = MUL_ADD(l31, xy, below);
        z[AT(4)] = xz;
        z[AT(5)] = xy;
    }
}

/* Squares of the difference of a field from its mean and of the mean, a tensor's in the Frobenius norm. */
INLINE void add_squares(const real *member, const real *mean, long size, long kind, real *apart, real *whole)
{
    long ndiagonal = kind == TENSOR_2D ? 2 : kind == TENSOR_3D ? 3 : size;
    for (long i = 0; i < size; ++i) {
        real times = i < ndiagonal ? R(1) : R(2);
        FOR_EACH_LANE(l) {
            real difference = member[AT(i)] - mean[AT(i)];
            apart[l] = MUL_ADD(times * difference, difference, apart[l]);
            whole[l] = MUL_ADD(times * mean[AT(i)], mean[AT(i)], whole[l]);
        }
    }
}

/* Square of a member's misfit: the largest over its fields. */
INLINE void misfit_squared(const real *member, const real *mean, long nfield, const int *kind, const int *size,
                           const real *field_scale, real *worst)
{
    FOR_EACH_LANE(l) worst[l] = 0;
    for (long f = 0, row = 0; f < nfield; row += size[f], ++f) {
        real apart[LANES], whole[LANES];
        FOR_EACH_LANE(l) {
            apart[l] = 0;
            whole[l] = 0;
        }
        add_squares(member + row * LANES, mean + row * LANES, size[f], kind[f], apart, whole);
        FOR_EACH_LANE(l) {
            real scale = kind[f] == LINEAR ? field_scale[f] * field_scale[f] : whole[l];
            real ratio = apart[l] / scale;
            worst[l] = ratio <= worst[l] ? worst[l] : ratio; /* a NaN wins */
        }
    }
}

KERNEL ensemble_forward(
    long ncells,              // number of cells
    long ninput,              // rows of the inputs
    long noutput,             // rows of the outputs
    long nmember,             // networks in the ensemble
    long nlayer,              // layers of weights of each
    long widest,              // neurons in the widest layer, the last included, padded to whole blocks
    long nweight,             // weights of one member, padding included
    long nfield,              // output fields
    const int *width,         // (nlayer) [1] neurons of each layer
    const int *kind,          // (nfield) [1] how a field is learnt: 0 as it is, 1 and 2 tensors in 2D and 3D
    const int *size,          // (nfield) [1] rows of each field
    const real *weights,      // (nmember, nweight) [1] in the order given above
    const real *input_mean,   // (ninput) [any] what is taken off the inputs
    const real *input_factor, // (ninput) [1/any] and what they are multiplied with after that
    const real *output_mean,  // (noutput) [any] what is added to the networks' outputs
    const real *output_scale, // (noutput) [any] after they were multiplied with this
    const real *field_scale,  // (nfield) [any] size of a field that is no tensor, in which its misfit is measured
    const real *inputs,       // (ninput, ncells) [any] closure inputs
    real *mean,               // (noutput, ncells) [any] mean of the members
    real *score,              // (ncells) [1] root mean square misfit of the members to that mean
    real *members,            // optional (nmember, noutput, ncells) [any] the members' own answers
    real *scratch             // scratch (ninput + 2 * nmember * widest + noutput) [1] the layers of a cell
) {
    FOR_EACH_TEAM(team, ncells) {
        real *x = TEAM_SCRATCH(scratch, ninput + 2 * nmember * widest + noutput);
        real *even = x + ninput * LANES;
        real *odd = even + nmember * widest * LANES;
        real *middle = odd + nmember * widest * LANES;

        FOR_EACH_POINT(i, ninput) FOR_EACH_LANE(l)
            x[AT(i)] = (inputs[i * ncells + CELL_OF(team, l, ncells)] - input_mean[i]) * input_factor[i];
        TEAM_BARRIER;

        const real *below = x, *layer_weights = weights;
        real *layer = even;
        long nbelow = ninput, stride = 0; /* all members share the inputs */
        for (long i = 0; i < nlayer; ++i) {
            long nblock = BLOCKS(width[i]), npoint = (nblock + 1) / 2;
            FOR_EACH_POINT(p, nmember * npoint) {
                long member = p / npoint, block = p % npoint * 2;
                layer_point(layer_weights + member * nweight + block * NEURONS * (nbelow + 1),
                            below + member * stride * LANES, nbelow, nblock - block > 1 ? 2 : 1,
                            i + 1 == nlayer, layer + (member * widest + block * NEURONS) * LANES);
            }
            TEAM_BARRIER;
            layer_weights += nblock * NEURONS * (nbelow + 1);
            nbelow = width[i];
            stride = widest;
            below = layer;
            layer = layer == even ? odd : even;
        }
        real *answers = below == even ? even : odd; /* of all members, [nmember][widest] */

        FOR_EACH_POINT(m, nmember) {
            real *answer = answers + m * widest * LANES;
            for (long i = 0; i < noutput; ++i)
                FOR_EACH_LANE(l) answer[AT(i)] = MUL_ADD(answer[AT(i)], output_scale[i], output_mean[i]);
            for (long f = 0, row = 0; f < nfield; row += size[f], ++f) {
                if (kind[f] == TENSOR_2D)
                    compose_2d(answer + row * LANES);
                if (kind[f] == TENSOR_3D)
                    compose_3d(answer + row * LANES);
            }
            if (members)
                for (long i = 0; i < noutput; ++i)
                    FOR_EACH_LANE(l)
                        if (HAS_CELL(team, l, ncells))
                            members[(m * noutput + i) * ncells + CELL_OF(team, l, ncells)] = answer[AT(i)];
        }
        TEAM_BARRIER;

        FOR_EACH_POINT(i, noutput) {
            FOR_EACH_LANE(l) middle[AT(i)] = 0;
            for (long m = 0; m < nmember; ++m)
                FOR_EACH_LANE(l) middle[AT(i)] = middle[AT(i)] + answers[AT(m * widest + i)];
            FOR_EACH_LANE(l) middle[AT(i)] = middle[AT(i)] / nmember;
            FOR_EACH_LANE(l)
                if (HAS_CELL(team, l, ncells))
                    mean[i * ncells + CELL_OF(team, l, ncells)] = middle[AT(i)];
        }
        TEAM_BARRIER;

        real spread[LANES];
        FOR_EACH_LANE(l) spread[l] = 0;
        FOR_EACH_POINT(m, nmember) {
            real worst[LANES];
            misfit_squared(answers + m * widest * LANES, middle, nfield, kind, size, field_scale, worst);
            FOR_EACH_LANE(l) spread[l] = spread[l] + worst[l];
        }
        TEAM_SUM(spread);
        TEAM_ONCE FOR_EACH_LANE(l)
            if (HAS_CELL(team, l, ncells))
                score[CELL_OF(team, l, ncells)] = hp_sqrt(spread[l] / nmember);
    }
}
