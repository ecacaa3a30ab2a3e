/* Molecular dynamics of small Lennard-Jones crystals under a given deformation: the stress with its error.

   natom = 4 nside^3 atoms of mass 1 in the periodic box F * nside * a; Langevin dynamics by the splitting
   BAOAB (B. Leimkuhler, C. Matthews 2013, doi 10.1093/amrx/abs010), which without friction is velocity
   Verlet. With the virial W = sum over pairs of d (x) f, the first Piola stress is

       P = -1/V0 (sum m v (x) v + W) F^-T,    V0 = (nside a)^3,

   averaged over samples; its standard error comes from the means of blocks of samples. Where there is a
   thermostat the kinetic part is its known mean, natom T. Units: epsilon, sigma and the atom's mass. */

#include "lennard_jones_pair.h"
#include "lennard_jones_box.h"
#include "counter_random.h"

#define OK 0
#define BAD_INPUT 2
#define BLOWN_UP 3
#define WRAP_EVERY 256 /* steps; a number of its own, since what is done must not depend on the team */

typedef struct {
    real energy[LANES];  /* potential energy of the box */
    real kinetic[LANES]; /* kinetic energy of the box */
    real tensor[6][LANES]; /* virial, then with the kinetic part: xx yy zz yz xz xy */
} Sample;

typedef struct {
    real mean[9][LANES], square[9][LANES]; /* of the blocks' P: mean, sum of squared deviations */
    real energy[LANES], kinetic[LANES];    /* sums over samples */
    real tensor[6][LANES];                 /* sum over the samples of a block */
} Average;

/* Forces on all atoms; where wanted also energy and virial. */
INLINE void forces(Atoms *a, real cutoff, int wanted, Sample *sample)
{
    real within = cutoff * cutoff, share = EACH_PAIR_ONCE ? R(1) : R(0.5);
    for (int k = 0; k < 6 && wanted; ++k)
        FOR_EACH_LANE(l) sample->tensor[k][l] = sample->energy[l] = 0;
    FOR_EACH_POINT(q, 3 * a->natom) FOR_EACH_LANE(l) a->f[q * LANES + l] = 0;
    TEAM_BARRIER;
    FOR_EACH_POINT(i, a->natom) {
        const int *list = a->list + i * a->most * LANES;
        real x[3][LANES], f[3][LANES], energy[LANES], w[6][LANES];
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l) x[k][l] = a->x[(3 * i + k) * LANES + l], f[k][l] = energy[l] = 0;
        for (int k = 0; k < 6 && wanted; ++k)
            FOR_EACH_LANE(l) w[k][l] = 0;
        for (int entry = 0; entry < a->count[i]; ++entry) {
            long other = (long)(list[entry] >> IMAGE_BITS) * (3 * LANES);
            const real *shift = a->shift + (list[entry] & ((1 << IMAGE_BITS) - 1)) * (3 * LANES);
            const real *xj = a->x + other;
            real *fj = a->f + other;
            FOR_EACH_LANE(l) {
                real dx = x[0][l] - xj[l] - shift[l];
                real dy = x[1][l] - xj[LANES + l] - shift[LANES + l];
                real dz = x[2][l] - xj[2 * LANES + l] - shift[2 * LANES + l];
                real square = MUL_ADD(dz, dz, MUL_ADD(dy, dy, dx * dx));
                Pair pair = pair_of(R(1) / square);
                real push = square < within ? pair.push : R(0);
                f[0][l] = MUL_ADD(push, dx, f[0][l]);
                f[1][l] = MUL_ADD(push, dy, f[1][l]);
                f[2][l] = MUL_ADD(push, dz, f[2][l]);
                if (EACH_PAIR_ONCE) {
                    fj[l] = MUL_ADD(push, -dx, fj[l]);
                    fj[LANES + l] = MUL_ADD(push, -dy, fj[LANES + l]);
                    fj[2 * LANES + l] = MUL_ADD(push, -dz, fj[2 * LANES + l]);
                }
                if (wanted) {
                    energy[l] += square < within ? pair.energy : R(0);
                    w[0][l] = MUL_ADD(push * dx, dx, w[0][l]);
                    w[1][l] = MUL_ADD(push * dy, dy, w[1][l]);
                    w[2][l] = MUL_ADD(push * dz, dz, w[2][l]);
                    w[3][l] = MUL_ADD(push * dy, dz, w[3][l]);
                    w[4][l] = MUL_ADD(push * dx, dz, w[4][l]);
                    w[5][l] = MUL_ADD(push * dx, dy, w[5][l]);
                }
            }
        }
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l) a->f[(3 * i + k) * LANES + l] += f[k][l];
        for (int k = 0; k < 6 && wanted; ++k)
            FOR_EACH_LANE(l) sample->tensor[k][l] += share * w[k][l];
        if (wanted)
            FOR_EACH_LANE(l) sample->energy[l] += share * energy[l];
    }
    TEAM_BARRIER;
    if (wanted) {
        TEAM_SUM(sample->energy);
        for (int k = 0; k < 6; ++k)
            TEAM_SUM(sample->tensor[k]);
    }
}

/* Atoms of the face-centred cubic lattice, deformed, with velocities of twice the temperature: half of
   that becomes potential energy as soon as the crystal vibrates. */
INLINE void start(Atoms *a, const Box *box, long nside, const real *temperature, const long *key)
{
    FOR_EACH_POINT(i, a->natom) {
        long cell = i / 4;
        int corner = (int)(i % 4);
        real x = (R(cell % nside) + (corner > 1 ? R(0.5) : R(0))) / R(nside);
        real y = (R(cell / nside % nside) + (corner % 2 ? R(0.5) : R(0))) / R(nside);
        real z = (R(cell / nside / nside) + (corner == 1 || corner == 2 ? R(0.5) : R(0))) / R(nside);
        for (int k = 0; k < 3; ++k)
            FOR_EACH_LANE(l) a->x[(3 * i + k) * LANES + l] = row_times(box->edge, k, l, x, y, z);
    }
    FOR_EACH_POINT(p, 3 * a->natom / 2) {
        real first[LANES], second[LANES];
        FOR_EACH_LANE(l)
            random_normal((unsigned long long)key[l], (unsigned long long)p, first + l, second + l);
        FOR_EACH_LANE(l) {
            real size = hp_sqrt(R(2) * temperature[l]);
            a->v[2 * p * LANES + l] = size * first[l];
            a->v[(2 * p + 1) * LANES + l] = size * second[l];
        }
    }
    TEAM_BARRIER;
}

/* B A O A of a step: half a kick, half a drift, the thermostat, half a drift. */
INLINE void move(Atoms *a, real dt, real damping, const real *noise, const long *key, unsigned long long step)
{
    long npair = 3 * a->natom / 2;
    real half = R(0.5) * dt;
    FOR_EACH_POINT(p, npair) {
        real *x = a->x + 2 * p * LANES, *v = a->v + 2 * p * LANES, *f = a->f + 2 * p * LANES;
        real first[LANES], second[LANES];
        FOR_EACH_LANE(l) first[l] = second[l] = 0;
        if (damping < 1)
            FOR_EACH_LANE(l)
                random_normal((unsigned long long)key[l], step * npair + p, first + l, second + l);
        FOR_EACH_LANE(l) {
            real kicked = MUL_ADD(half, f[l], v[l]), other = MUL_ADD(half, f[LANES + l], v[LANES + l]);
            v[l] = MUL_ADD(damping, kicked, noise[l] * first[l]);
            v[LANES + l] = MUL_ADD(damping, other, noise[l] * second[l]);
            x[l] += half * (kicked + v[l]);
            x[LANES + l] += half * (other + v[LANES + l]);
        }
    }
    TEAM_BARRIER;
}

/* The last B of a step, and the kinetic energy. */
INLINE void kick(Atoms *a, real dt, real *kinetic)
{
    FOR_EACH_LANE(l) kinetic[l] = 0;
    FOR_EACH_POINT(q, 3 * a->natom) FOR_EACH_LANE(l) {
        real v = MUL_ADD(R(0.5) * dt, a->f[q * LANES + l], a->v[q * LANES + l]);
        a->v[q * LANES + l] = v;
        kinetic[l] = MUL_ADD(R(0.5) * v, v, kinetic[l]);
    }
    TEAM_SUM(kinetic);
}

/* P = -1/V0 (tensor + kinetic I) F^-T. */
INLINE void piola(const Box *box, int l, real side, real tensor[6][LANES], real kinetic, real *p)
{
    real t[9] = {tensor[0][l] + kinetic, tensor[5][l], tensor[4][l], tensor[5][l], tensor[1][l] + kinetic,
                 tensor[3][l], tensor[4][l], tensor[3][l], tensor[2][l] + kinetic};
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) { /* F^-1 = side H^-1, V0 = side^3 */
            real sum = 0;
            for (int k = 0; k < 3; ++k)
                sum += t[3 * i + k] * box->inverse[3 * j + k][l];
            p[3 * i + j] = -sum / (side * side);
        }
}

/* Adds the n-th block of samples to the running mean and spread (B. P. Welford 1962), begins the next.
   kinetic: known part of the tensor's diagonal. */
INLINE void close_block(Average *average, const Box *box, real side, int n, int nsample, const real *kinetic)
{
    FOR_EACH_LANE(l) {
        real p[9];
        for (int k = 0; k < 6; ++k)
            average->tensor[k][l] /= R(nsample);
        piola(box, l, side, average->tensor, kinetic[l], p);
        for (int k = 0; k < 9; ++k) {
            real before = p[k] - average->mean[k][l];
            average->mean[k][l] += before / R(n);
            average->square[k][l] += before * (p[k] - average->mean[k][l]);
        }
        for (int k = 0; k < 6; ++k)
            average->tensor[k][l] = 0;
    }
}

INLINE void add_sample(Average *average, const Sample *sample, int thermostat)
{
    FOR_EACH_LANE(l) {
        average->energy[l] += sample->energy[l];
        average->kinetic[l] += sample->kinetic[l];
    }
    for (int k = 0; k < 6; ++k)
        FOR_EACH_LANE(l) average->tensor[k][l] += sample->tensor[k][l];
    for (int k = 0; k < 3 && !thermostat; ++k)
        FOR_EACH_LANE(l) average->tensor[k][l] += sample->kinetic[l] * (R(2) / R(3));
}

/* Positions and velocities from the caller, or back to it. */
INLINE void exchange(Atoms *a, long team, long ncells, real *positions, real *velocities, int inwards)
{
    FOR_EACH_POINT(q, 3 * a->natom) FOR_EACH_LANE(l) {
        long place = q * ncells + CELL_OF(team, l, ncells);
        if (inwards) {
            a->x[q * LANES + l] = positions[place];
            a->v[q * LANES + l] = velocities[place];
        } else if (HAS_CELL(team, l, ncells)) {
            positions[place] = a->x[q * LANES + l];
            velocities[place] = a->v[q * LANES + l];
        }
    }
    TEAM_BARRIER;
}

/* Makes the lists anew where they are old. Atoms are wrapped at steps that do not depend on the team. */
INLINE void renew_lists(Atoms *a, const Box *box, real cutoff, real reach, int step)
{
    if (step % WRAP_EVERY == 0) {
        wrap(a, box);
        make_lists(a, box, cutoff + reach);
    } else if (lists_are_old(a, reach)) {
        make_lists(a, box, cutoff + reach);
    }
}

INLINE void clear(Average *average)
{
    FOR_EACH_LANE(l) {
        average->energy[l] = average->kinetic[l] = 0;
        for (int k = 0; k < 6; ++k)
            average->tensor[k][l] = 0;
        for (int k = 0; k < 9; ++k)
            average->mean[k][l] = average->square[k][l] = 0;
    }
}

KERNEL lennard_jones(
    long ncells,             // number of cells
    long nside,              // fcc cells along a side of the box
    long natom,              // atoms of a cell, 4 nside^3
    long most,               // neighbours that an atom may have, those beyond the cut-off included
    long nword,              // scratch numbers per lane that hold the lists
    int equilibration,       // steps before the first sample
    int nblock,              // blocks of samples
    int nsample,             // samples of a block
    int every,               // steps from sample to sample
    real dt,                 // [tau] time step
    real friction,           // [1/tau] of the thermostat; 0: none
    real cutoff,             // [sigma] beyond it atoms do not see each other
    real skin,               // [sigma] how much further the lists reach
    real lattice,            // [sigma] lattice constant of the undeformed crystal
    const real *temperature, // (ncells) [epsilon/k] of the thermostat and of the start
    const long *key,         // (ncells) of the cell's random numbers
    const real *deformation, // (9, ncells) deformation gradient F_iJ, row by row
    real *positions,         // optional (3*natom, ncells) [sigma] where to start, replaced by the last ones
    real *velocities,        // optional (3*natom, ncells) [sigma/tau] likewise; both or none
    real *stress,            // (9, ncells) [epsilon/sigma^3] first Piola stress P_iJ, mean over samples
    real *error,             // (9, ncells) [epsilon/sigma^3] standard error of that mean
    real *energy,            // (2, ncells) [epsilon] potential and kinetic energy of an atom, likewise
    int *status,             // (ncells) 0 good, 2 bad input, 3 blown up
    real *scratch            // scratch (15*natom + 380 + nword) [1] atoms and lists
) {
    FOR_EACH_TEAM(team, ncells) {
        Atoms a = lay_out(natom, most, TEAM_SCRATCH(scratch, 15 * natom + 380 + nword));
        Box box;
        Average average;
        Sample sample;
        real warmth[LANES], noise[LANES], known[LANES], most_kinetic[LANES], side = lattice * R(nside);
        long keys[LANES];
        real damping = friction > 0 ? hp_exp(-friction * dt) : R(1);
        real reach = make_boxes(&box, team, ncells, deformation, side, cutoff, skin);
        FOR_EACH_LANE(l) {
            long c = CELL_OF(team, l, ncells);
            box.bad[l] = box.bad[l] || !(temperature[c] >= 0);
            keys[l] = key[c];
            warmth[l] = box.bad[l] ? R(0) : temperature[c];
            noise[l] = hp_sqrt((R(1) - damping * damping) * warmth[l]);
            known[l] = friction > 0 ? warmth[l] * R(natom) : R(0);
            most_kinetic[l] = friction > 0 ? R(15) * warmth[l] + R(1) : HP_LARGEST; /* ten times the mean */
        }
        make_images(&a, &box);
        start(&a, &box, nside, warmth, keys);
        if (positions)
            exchange(&a, team, ncells, positions, velocities, 1);
        clear(&average);
        wrap(&a, &box);
        make_lists(&a, &box, cutoff + reach);
        forces(&a, cutoff, 0, &sample);
        for (int step = 1, last = equilibration + nblock * nsample * every; step <= last; ++step) {
            int sampled = step - equilibration;
            int due = sampled > 0 && sampled % every == 0;
            move(&a, dt, damping, noise, keys, (unsigned long long)step);
            renew_lists(&a, &box, cutoff, reach, step);
            if (due)
                forces(&a, cutoff, 1, &sample);
            else
                forces(&a, cutoff, 0, &sample);
            kick(&a, dt, sample.kinetic);
            if (due)
                add_sample(&average, &sample, friction > 0);
            if (due && sampled % (every * nsample) == 0)
                close_block(&average, &box, side, sampled / (every * nsample), nsample, known);
        }
        if (positions)
            exchange(&a, team, ncells, positions, velocities, 0);
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            real weight = R(1) / (R(nblock) * R(nsample) * R(natom)), spread = R(nblock) * R(nblock - 1);
            energy[c] = average.energy[l] * weight;
            energy[ncells + c] = average.kinetic[l] * weight;
            status[c] = box.bad[l] ? BAD_INPUT : (energy[ncells + c] < most_kinetic[l] ? OK : BLOWN_UP);
            for (int k = 0; k < 9; ++k) {
                stress[k * ncells + c] = average.mean[k][l];
                error[k * ncells + c] = hp_sqrt(average.square[k][l] / spread);
            }
        }
    }
}

/* Forces, energy and virial of given atoms, for checks and for other integrators. */
KERNEL lennard_jones_forces(
    long ncells,             // number of cells
    long natom,              // atoms of a cell
    long most,               // neighbours that an atom may have, those beyond the cut-off included
    long nword,              // scratch numbers per lane that hold the lists
    real cutoff,             // [sigma] beyond it atoms do not see each other
    real skin,               // [sigma] how much further the lists reach
    real side,               // [sigma] side of the undeformed box
    const real *deformation, // (9, ncells) deformation gradient F_iJ, row by row
    const real *positions,   // (3*natom, ncells) [sigma] of the atoms
    real *force,             // (3*natom, ncells) [epsilon/sigma] on the atoms
    real *energy,            // (ncells) [epsilon] potential energy of the box
    real *virial,            // (6, ncells) [epsilon] sum over pairs of d (x) f: xx yy zz yz xz xy
    int *status,             // (ncells) 0 good, 2 bad input, 3 too many neighbours
    real *scratch            // scratch (15*natom + 380 + nword) [1] atoms and lists
) {
    FOR_EACH_TEAM(team, ncells) {
        Atoms a = lay_out(natom, most, TEAM_SCRATCH(scratch, 15 * natom + 380 + nword));
        Box box;
        Sample sample;
        real reach = make_boxes(&box, team, ncells, deformation, side, cutoff, skin);
        make_images(&a, &box);
        FOR_EACH_POINT(q, 3 * natom) FOR_EACH_LANE(l) {
            a.x[q * LANES + l] = positions[q * ncells + CELL_OF(team, l, ncells)];
            a.v[q * LANES + l] = 0;
        }
        TEAM_BARRIER;
        wrap(&a, &box);
        make_lists(&a, &box, cutoff + reach);
        forces(&a, cutoff, 1, &sample);
        kick(&a, 0, sample.kinetic); /* not 0 where an atom has too many neighbours */
        FOR_EACH_POINT(q, 3 * natom) FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells))
            force[q * ncells + CELL_OF(team, l, ncells)] = a.f[q * LANES + l];
        TEAM_ONCE FOR_EACH_LANE(l) if (HAS_CELL(team, l, ncells)) {
            long c = CELL_OF(team, l, ncells);
            energy[c] = sample.energy[l];
            status[c] = box.bad[l] ? BAD_INPUT : (sample.kinetic[l] == 0 ? OK : BLOWN_UP);
            for (int k = 0; k < 6; ++k)
                virial[k * ncells + c] = sample.tensor[k][l];
        }
    }
}
