/* A cell of the human ventricle, epicardial: ten Tusscher and Panfilov 2006, 19 states.

   Twelve gates by Rush and Larsen's exponential step, voltage and concentrations by forward Euler, all from
   the values at the start of a substep. Units: mV, ms, mM, pA/pF.

   The formulas are those of the paper, rewritten for fewer exponentials and divisions: exponentials of V/5,
   V/10, V/20, ... are powers of one, so are those of multiples of V F / (R T); a time constant
   a / (1 + x) * b / (1 + y) stands as its reciprocal, a rate, with one division or none. The sodium gates
   have other formulas below -40 mV: the choice is made between arguments, before the exponential.

   Cells of a block take all substeps of a call in turn while they lie in the nearest cache. */

#define EXP(argument, value) R(value) /* exp(argument), which a unit test checks */
#define LOG(argument, value) R(value)

#define FARADAY 96485.3415 /* C/mol */
#define RT_PER_F (8314.472 * 310.0 / FARADAY) /* mV */
#define CYTOPLASM 0.016404 /* nl: volumes of cytoplasm, reticulum, subspace */
#define RETICULUM 0.001094
#define SUBSPACE 0.00005468
#define CAPACITANCE 0.185 /* nF */
#define MOLES(volume) (CAPACITANCE / ((volume) * FARADAY)) /* mM/ms of ions of one charge per pA/pF */

#define POTASSIUM_OUT 5.4 /* mM outside of the cell */
#define SODIUM_OUT 140.0
#define CALCIUM_OUT 2.0

#define LOWEST_VOLTAGE R(-200) /* mV: outside of these a step was too long */
#define HIGHEST_VOLTAGE R(120)

typedef struct {
    real v;
    real xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r; // gates
    real cai, casr, cass; // mM, calcium in cytoplasm, reticulum, subspace
    real rbar;            // share of release channels that are not inactivated, R'
    real nai, ki;         // mM, sodium and potassium
} Myocyte;

// Powers of exp(V/120), named by what V is divided by, and some reciprocals.
typedef struct {
    real p24, p20, p15, p10, p7_5, p7, p6, p5;
    real p14;
    real n20, n10, n6, n5; // exp(-V/20), ...
} Powers;

INLINE Powers powers(real v)
{
    Powers e;
    real p120 = hp_exp(v * R(1.0 / 120.0));
    real p60 = p120 * p120, p30 = p60 * p60;
    e.p24 = p120 * p30;
    e.p20 = p60 * p30;
    e.p15 = p30 * p30;
    e.p10 = e.p20 * e.p20;
    e.p7_5 = e.p15 * e.p15;
    e.p6 = e.p10 * e.p15;
    e.p5 = e.p10 * e.p10;
    real n60 = R(1) / p60, n30 = n60 * n60;
    e.n20 = n60 * n30;
    e.n10 = e.n20 * e.n20;
    e.n6 = e.n10 * n30 * n30;
    e.n5 = e.n10 * e.n10;
    e.p14 = hp_exp(v * R(1.0 / 14.0));
    e.p7 = e.p14 * e.p14;
    return e;
}

INLINE real one_plus(real factor, real power) { return MUL_ADD(factor, power, R(1)); }

// A gate after dt: exact where its limit and rate stand still.
INLINE real relax(real gate, real limit, real rate, real dt)
{
    return MUL_ADD(gate - limit, hp_exp(-dt * rate), limit);
}

INLINE void move_potassium_gates(Myocyte *cell, real v, Powers e, real dt)
{
    real limit = e.p7 / (e.p7 + EXP(-26.0 / 7.0, 0.0243728440732796));
    real rate = one_plus(EXP(-45.0 / 10.0, 0.011108996538242306), e.n10);
    rate *= R(1) + hp_exp((v + R(30)) * R(1.0 / 11.5));
    cell->xr1 = relax(cell->xr1, limit, rate * R(1.0 / 2700.0), dt);

    limit = R(1) / one_plus(EXP(88.0 / 24.0, 39.12128399815321), e.p24);
    rate = one_plus(EXP(-60.0 / 20.0, 0.049787068367863944), e.n20);
    rate *= one_plus(EXP(-60.0 / 20.0, 0.049787068367863944), e.p20);
    cell->xr2 = relax(cell->xr2, limit, rate * R(1.0 / 3.36), dt);

    limit = e.p14 / (e.p14 + EXP(-5.0 / 14.0, 0.6996725373751304));
    rate = hp_sqrt(one_plus(EXP(5.0 / 6.0, 2.300975890892825), e.n6));
    rate *= one_plus(EXP(-35.0 / 15.0, 0.09697196786440505), e.p15);
    cell->xs = relax(cell->xs, limit, rate / MUL_ADD(R(80), rate, R(1400)), dt);

    real x = one_plus(EXP(20.0 / 5.0, 54.598150033144236), e.p5);
    real y = one_plus(EXP(-20.0 / 5.0, 0.01831563888873418), e.p5);
    real bell = hp_exp((v + R(45)) * (v + R(45)) * R(-1.0 / 320.0));
    cell->s = relax(cell->s, R(1) / x, y / MUL_ADD(MUL_ADD(R(85), bell, R(3)), y, R(5)), dt);

    bell = hp_exp((v + R(40)) * (v + R(40)) * R(-1.0 / 1800.0));
    limit = e.p6 / (e.p6 + EXP(20.0 / 6.0, 28.03162489452614));
    cell->r = relax(cell->r, limit, R(1) / MUL_ADD(R(9.5), bell, R(0.8)), dt);
}

INLINE void move_sodium_gates(Myocyte *cell, real v, Powers e, real dt)
{
    real x = one_plus(EXP(-60.0 / 5.0, 6.14421235332821e-06), e.n5);
    real y = one_plus(EXP(35.0 / 5.0, 1096.6331584284585), e.p5);
    real z = R(1) + hp_exp((v - R(50)) * R(1.0 / 200.0));
    real root = R(1) + hp_exp((R(-56.86) - v) * R(1.0 / 9.03));
    cell->m = relax(cell->m, R(1) / (root * root), R(10) * x * y * z / (y + z), dt);

    int low = v < R(-40);
    root = R(1) + hp_exp((v + R(71.55)) * R(1.0 / 7.43));
    real limit = R(1) / (root * root);
    real first = hp_exp(low ? (v + R(80)) * R(-1.0 / 6.8) : (v + R(10.66)) * R(-1.0 / 11.1));
    real slow = R(0.057) * first + R(2.7) * hp_exp(R(0.079) * v) + R(3.1e5) * hp_exp(R(0.3485) * v);
    real fast = R(0.77 / 0.13) / (R(1) + first);
    cell->h = relax(cell->h, limit, low ? slow : fast, dt);

    real open = MUL_ADD(R(-25428), hp_exp(R(0.2444) * v), R(-6.948e-6) * hp_exp(R(-0.04391) * v));
    open *= v + R(37.78);
    x = R(1) + hp_exp(R(0.311) * (v + R(79.23)));
    y = R(1) + hp_exp(low ? R(-0.1378) * (v + R(40.14)) : R(-0.1) * (v + R(32)));
    real close = hp_exp(low ? R(-0.01052) * v : R(0.057) * v);
    real above = low ? MUL_ADD(open, y, R(0.02424) * close * x) : R(0.6) * close;
    cell->j = relax(cell->j, limit, above / (low ? x * y : y), dt);
}

INLINE void move_calcium_gates(Myocyte *cell, real v, Powers e, real dt)
{
    real x = R(1) + hp_exp((R(-35) - v) * R(1.0 / 13.0));
    real y = one_plus(EXP(5.0 / 5.0, 2.718281828459045), e.p5);
    real z = one_plus(EXP(50.0 / 20.0, 12.182493960703473), e.n20);
    real xy = x * y, product = xy * z;
    real limit = e.p7_5 / (e.p7_5 + EXP(-8.0 / 7.5, 0.34415378686541237));
    cell->d = relax(cell->d, limit, product / MUL_ADD(MUL_ADD(R(0.35), x, R(1.96)), z, xy), dt);

    x = one_plus(EXP(13.0 / 10.0, 3.6692966676192444), e.n10);
    y = one_plus(EXP(30.0 / 10.0, 20.085536923187668), e.p10), xy = x * y;
    real square = (v + R(27)) * (v + R(27)), bell = hp_exp(square * R(-1.0 / 225.0));
    real slowness = MUL_ADD(MUL_ADD(R(1102.5), bell, R(20)), xy, MUL_ADD(R(200), y, R(180) * x));
    cell->f = relax(cell->f, R(1) / one_plus(EXP(20.0 / 7.0, 17.41170806332765), e.p7), xy / slowness, dt);

    x = one_plus(EXP(25.0 / 10.0, 12.182493960703473), e.n10), xy = x * y;
    bell = hp_exp(square * R(-1.0 / 240.0));
    slowness = MUL_ADD(R(562) * bell, xy, MUL_ADD(R(31), y, R(80) * x));
    limit = R(0.33) + R(0.67) / one_plus(EXP(35.0 / 7.0, 148.4131591025766), e.p7);
    cell->f2 = relax(cell->f2, limit, xy / slowness, dt);

    x = MUL_ADD(cell->cass * cell->cass, R(400), R(1)); // 1 + (CaSS / 0.05)^2
    cell->fcass = relax(cell->fcass, R(0.4) + R(0.6) / x, x / MUL_ADD(R(2), x, R(80)), dt);
}

// Currents in pA/pF: each alone where it carries ions that the cell keeps account of.
typedef struct {
    real sodium;    // pump and exchanger included
    real potassium; // pump included
    real calcium;   // of the cytoplasm, exchanger included
    real l_type;    // calcium into the subspace
    real total;     // of all charges
} Currents;

// x / (exp(x) - 1) for the given exp(x); a series where the difference cancels.
INLINE real bernoulli(real x, real exp_x)
{
    int small = hp_abs(x) < R(0.01);
    real series = MUL_ADD(x, MUL_ADD(x, R(1.0 / 12.0), R(-0.5)), R(1));
    return small ? series : x / (small ? R(1) : exp_x - R(1));
}

INLINE real inward_rectifier(real x)
{
    // x = V - E_K; the paper's alpha / (alpha + beta).
    real p = hp_exp(R(0.02) * x), p2 = p * p, p3 = p2 * p, p5 = p3 * p2;
    real n5 = R(1) / p5, n10 = n5 * n5, closed = R(1) + n10 * n10 * n5; // 1 + exp(-0.5 x)
    real alpha = R(0.1) * closed;
    real beta = MUL_ADD(R(3), hp_exp(R(0.0002) * (x + R(100))), EXP(-1.0, 0.36787944117144233) * p5);
    return R(5.405) * x * alpha / MUL_ADD(beta, MUL_ADD(EXP(-12.0, 6.14421235332821e-06), p3, R(1)), alpha);
}

// What depends on multiples of w = V F / (R T).
typedef struct {
    real pump, exchanger, l_type;
} Exchange;

#define SODIUM_OUT_CUBED (SODIUM_OUT * SODIUM_OUT * SODIUM_OUT)
#define EXCHANGER (1000.0 / ((87.5 * 87.5 * 87.5 + SODIUM_OUT_CUBED) * (1.38 + CALCIUM_OUT)))

INLINE Exchange exchange(const Myocyte *cell, real v)
{
    real q = hp_exp(v * R(0.05 / RT_PER_F)); // exp(w / 20)
    real q2 = q * q, q4 = q2 * q2, q5 = q4 * q, q7 = q5 * q2, q10 = q5 * q5, q20 = q10 * q10, q40 = q20 * q20;
    real n20 = R(1) / q20, n2 = R(1) / q2, n13 = n20 * q7;
    Exchange i;
    real blocked = MUL_ADD(R(0.1245), n2, MUL_ADD(R(0.0353), n20, R(1)));
    i.pump = R(2.724 * POTASSIUM_OUT / (POTASSIUM_OUT + 1.0)) * cell->nai / ((cell->nai + R(40)) * blocked);

    real inward = R(CALCIUM_OUT) * q7 * (cell->nai * cell->nai * cell->nai);
    real outward = R(2.5 * SODIUM_OUT_CUBED) * n13 * cell->cai;
    i.exchanger = R(EXCHANGER) * (inward - outward) / MUL_ADD(R(0.1), n13, R(1));

    // Goldman, Hodgkin and Katz, of two charges at V - 15 mV.
    real charges = R(2.0 / RT_PER_F) * (v - R(15));
    real exp_charges = EXP(-30.0 / RT_PER_F, 0.3252969814969026) * q40;
    real gates = cell->d * cell->f * cell->f2 * cell->fcass;
    i.l_type = R(2.0 * 3.98e-5 * FARADAY) * gates * bernoulli(charges, exp_charges) *
               MUL_ADD(R(0.25) * cell->cass, exp_charges, R(-CALCIUM_OUT));
    return i;
}

INLINE Currents currents(const Myocyte *cell, real v)
{
    real e_na = R(RT_PER_F) * (LOG(140.0, 4.941642422609304) - hp_log(cell->nai));
    real e_k = R(RT_PER_F) * (LOG(5.4, 1.6863989535702288) - hp_log(cell->ki));
    real both = MUL_ADD(R(0.03), cell->nai, cell->ki);
    real e_ks = R(RT_PER_F) * (LOG(5.4 + 0.03 * 140.0, 2.2617630984737906) - hp_log(both));
    real e_ca = R(0.5 * RT_PER_F) * (LOG(2.0, 0.6931471805599453) - hp_log(cell->cai));

    real fast_sodium = R(14.838) * cell->m * cell->m * cell->m * cell->h * cell->j * (v - e_na);
    real x = v - e_k;
    real rapid = R(0.153) * cell->xr1 * cell->xr2 * x;
    real slow = R(0.392) * cell->xs * cell->xs * (v - e_ks);
    real transient = R(0.294) * cell->r * cell->s * x;
    real plateau = R(0.0146) * x / (R(1) + hp_exp((R(25) - v) * R(1.0 / 5.98)));
    real leak_calcium = R(0.000592) * (v - e_ca);
    real sarcolemma = R(0.1238) * cell->cai / (cell->cai + R(0.0005));
    Exchange e = exchange(cell, v);

    Currents i;
    i.sodium = fast_sodium + R(0.00029) * (v - e_na) + R(3) * (e.pump + e.exchanger);
    i.potassium = inward_rectifier(x) + rapid + slow + transient + plateau - R(2) * e.pump;
    i.calcium = leak_calcium + sarcolemma - R(2) * e.exchanger;
    i.l_type = e.l_type;
    i.total = i.sodium + i.potassium + i.calcium + i.l_type;
    return i;
}

// Share of calcium that is free where a buffer holds some, d free / d total.
INLINE real free_share(real calcium, real buffer, real half)
{
    real square = (calcium + half) * (calcium + half);
    return square / (square + buffer * half);
}

INLINE void move_concentrations(Myocyte *cell, Currents i, real dt)
{
    real cai = cell->cai, casr = cell->casr, cass = cell->cass;
    real uptake = R(0.006375) * cai * cai / MUL_ADD(cai, cai, R(0.00025 * 0.00025));
    real leak = R(0.00036) * (casr - cai), transfer = R(0.0038) * (cass - cai);
    real square = casr * casr, kcasr = R(2.5) - R(1.5) * square / (square + R(1.5 * 1.5));
    real k1 = R(0.15) * cass * cass; // times kcasr
    real open = k1 * cell->rbar / MUL_ADD(R(0.06), kcasr, k1);
    real release = R(0.102) * open * (casr - cass);
    cell->rbar += dt * (R(0.005) * (R(1) - cell->rbar) - R(0.045) * kcasr * cass * cell->rbar);

    real into_cytoplasm = (leak - uptake) * R(RETICULUM / CYTOPLASM) + transfer -
                          R(0.5 * MOLES(CYTOPLASM)) * i.calcium;
    real into_subspace = release * R(RETICULUM / SUBSPACE) - transfer * R(CYTOPLASM / SUBSPACE) -
                         R(0.5 * MOLES(SUBSPACE)) * i.l_type;
    cell->cai += dt * free_share(cai, R(0.2), R(0.001)) * into_cytoplasm;
    cell->casr += dt * free_share(casr, R(10), R(0.3)) * (uptake - release - leak);
    cell->cass += dt * free_share(cass, R(0.4), R(0.00025)) * into_subspace;
    cell->nai -= dt * R(MOLES(CYTOPLASM)) * i.sodium;
    cell->ki -= dt * R(MOLES(CYTOPLASM)) * i.potassium;
}

INLINE Myocyte load(const real *voltage, const real *s, long n)
{
    Myocyte cell;
    cell.v = voltage[0];
    cell.xr1 = s[0], cell.xr2 = s[n], cell.xs = s[2 * n];
    cell.m = s[3 * n], cell.h = s[4 * n], cell.j = s[5 * n];
    cell.d = s[6 * n], cell.f = s[7 * n], cell.f2 = s[8 * n], cell.fcass = s[9 * n];
    cell.s = s[10 * n], cell.r = s[11 * n];
    cell.cai = s[12 * n], cell.casr = s[13 * n], cell.cass = s[14 * n], cell.rbar = s[15 * n];
    cell.nai = s[16 * n], cell.ki = s[17 * n];
    return cell;
}

INLINE void store(Myocyte cell, long n, real *voltage, real *s)
{
    voltage[0] = cell.v;
    s[0] = cell.xr1, s[n] = cell.xr2, s[2 * n] = cell.xs;
    s[3 * n] = cell.m, s[4 * n] = cell.h, s[5 * n] = cell.j;
    s[6 * n] = cell.d, s[7 * n] = cell.f, s[8 * n] = cell.f2, s[9 * n] = cell.fcass;
    s[10 * n] = cell.s, s[11 * n] = cell.r;
    s[12 * n] = cell.cai, s[13 * n] = cell.casr, s[14 * n] = cell.cass, s[15 * n] = cell.rbar;
    s[16 * n] = cell.nai, s[17 * n] = cell.ki;
}

INLINE Myocyte advanced(Myocyte cell, real stimulus, real dt)
{
    real v = cell.v;
    Powers e = powers(v);
    Currents i = currents(&cell, v);
    move_potassium_gates(&cell, v, e, dt);
    move_sodium_gates(&cell, v, e, dt);
    move_calcium_gates(&cell, v, e, dt);
    move_concentrations(&cell, i, dt);
    cell.v = v + dt * (stimulus - i.total);
    return cell;
}

// Advances cells by nsubstep steps of dt, with a stimulus that stays.
KERNEL tt06_advance(
    long ncells,           // number of cells
    long nblock,           // number of blocks of cells, the last may be smaller
    long size,             // cells of a block
    long nsubstep,         // steps, at least 1
    real dt,               // [ms] length of each
    const real *stimulus,  // (ncells) [mV/ms] current from outside over capacitance
    const real *voltage,   // (ncells) [mV] before
    const real *state,     // (18, ncells) before: Xr1 Xr2 Xs m h j d f f2 fCass s r, Cai CaSR CaSS R' Nai Ki
    real *voltage_after,   // (ncells) [mV] after
    real *state_after,     // (18, ncells) after
    int *status            // (ncells) 0, or 1 where a value is not finite or the voltage absurd
) {
    FOR_EACH_ROW(block, nblock) {
        long first = block * size, last = hp_min_long(first + size, ncells);
        for (long substep = 0; substep < nsubstep; ++substep) {
            const real *v = substep ? voltage_after : voltage, *s = substep ? state_after : state;
            FOR_EACH_IN_ROW(c, first, last)
                store(advanced(load(v + c, s + c, ncells), stimulus[c], dt), ncells, voltage_after + c,
                      state_after + c);
        }
        FOR_EACH_IN_ROW(c, first, last) {
            real sum = R(0);
            UNROLLED for (int k = 0; k < 9; ++k)
                sum += state_after[k * ncells + c] + state_after[(k + 9) * ncells + c];
            int possible = voltage_after[c] > LOWEST_VOLTAGE && voltage_after[c] < HIGHEST_VOLTAGE;
            status[c] = possible && sum - sum == R(0) ? 0 : 1;
        }
    }
}
