# make run        set up what is missing, then compute the composite wall on 2 ranks and draw it
# make test       set up what is missing, then unit, MPI and system tests
# make setup      only set up: system packages (where allowed), .venv, the package itself
# make lint       ruff, check and format
# make benchmark  the measurements of benchmarks/README.md, into benchmarks/results/
# make clean      remove results and builds; .venv stays (make distclean removes it too)
#
# Variables: PYTHON (a python with petsc4py, where there is no apt), NRANKS, CASE, RESULTS,
#            TORCH (what pip is asked for), MPIRUN.

VENV    ?= .venv
NRANKS  ?= 2
MPIRUN  ?= mpirun
CASE    ?= composite_wall
RESULTS ?= results/$(CASE)
TORCH   ?= torch==2.13.0
BIN     := $(VENV)/bin

# Root and more ranks than cores are normal in containers, which also often forbid copies between
# processes (vader). Under other launchers h5py would silently be serial.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_btl_vader_single_copy_mechanism := none
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
export OMP_NUM_THREADS := 1
export H5PY_ALWAYS_USE_MPI := 1
export PYTHON VENV TORCH

.PHONY: run test setup setup-dev lint benchmark clean distclean

run: setup
	$(MPIRUN) -n $(NRANKS) $(BIN)/hpcmsm run cases/$(CASE).toml -o $(RESULTS) --overwrite
	$(BIN)/hpcmsm report $(RESULTS)

test: setup-dev
	@$(BIN)/python tests/run_all

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

# The stamps: a second call sets nothing up again.
$(VENV)/.ready: setup.py pyproject.toml jobs/setup_machine.sh
	@bash jobs/setup_machine.sh run
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@bash jobs/setup_machine.sh dev
	@touch $@

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: setup-dev
	for name in coupling macro_step unit_cell grain tt06 lennard_jones chemistry engine vectorised ensemble composite_wall checkpoint; do \
	    $(BIN)/python benchmarks/$$name.py --output benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python benchmarks/scaling.py --case cases/$(CASE).toml --ranks 1,2 \
	    --set surrogate.enabled=false --set time.end=60 --output benchmarks/results
	$(BIN)/python benchmarks/table.py

clean:
	rm -rf results build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
