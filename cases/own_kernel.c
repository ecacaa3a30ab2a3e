/* A micro model in C, for cases/own_kernel.toml: copy both, and change the physics. How such a function is
   written is told in kernels/README.md; it runs vectorised on the CPU and unchanged on a GPU. */

#define ITERATIONS 20

// Curing of an epoxy between fibres, by backward Euler and Newton's method, and what the composite conducts.
KERNEL curing(
    long ncells,              // number of cells
    real dt,                  // [s] time step
    real rate,                // [1/s] of the reaction at infinite temperature
    real activation,          // [K] activation energy over the gas constant
    real resin,               // [W/(m K)] conductivity of the uncured resin
    real stiffer,             // [W/(m K)] what curing adds to it
    real fibre,               // [W/(m K)] conductivity of the fibres, across
    const real *temperature,  // (ncells) [K] macro temperature
    const real *fraction,     // (ncells) [1] area fraction of the fibres
    const real *cure,         // (ncells) [1] degree of cure before the step, from 0 to 1
    real *cure_after,         // (ncells) [1] after it
    real *conductivity,       // (3, ncells) [W/(m K)] xx, yy, xy
    int *iterations,          // (ncells) of Newton's method
    int *status               // (ncells) 0 good, 1 not converged
) {
    FOR_EACH_CELL(c, ncells) {
        /* Kamal and Sourour: da/dt = k (0.01 + a) (1 - a)^2, with k from Arrhenius. */
        real step = dt * rate * hp_exp(-activation / temperature[c]);
        real old = cure[c], a = old, change = 1;
        int used = 0;
        for (int i = 0; i < ITERATIONS; ++i) {
            real left = 1 - a, grown = R(0.01) + a;
            real residual = a - old - step * grown * left * left;
            real slope = 1 - step * (left * left - 2 * grown * left);
            int open = hp_abs(change) > R(1e-7); /* a choice of values, no branch: so cells stay side by side */
            change = open ? residual / slope : change;
            a = open ? a - change : a;
            used += open;
        }
        /* Maxwell's formula in two dimensions. */
        real k = resin + stiffer * a, contrast = (fibre - k) / (fibre + k) * fraction[c];
        cure_after[c] = a;
        conductivity[c] = conductivity[ncells + c] = k * (1 + contrast) / (1 - contrast);
        conductivity[2 * ncells + c] = 0;
        iterations[c] = used;
        status[c] = !(hp_abs(change) <= R(1e-7) && a >= 0 && a <= 1);
    }
}
