# make book    execute every chapter and build the pages
# make test    lint, unit tests, equation ledger, notebooks, the pages in a browser
# make test32  unit tests, equations and notebooks once more, in float32
# make colab   each chapter in an environment like Colab's
# make pdf     print the whole book
# All set up .venv by themselves. PYTHON=/path/to/python names an interpreter
# (3.11, 3.12 or 3.13); otherwise the first suitable one is taken.

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
READY := $(VENV)/.ready
BROUGHT := $(VENV)/.brought
PDF := differentiating-equilibria.pdf
COLAB ?= 3.13
TWIN := $(VENV)-colab-$(COLAB)
CODE := $(wildcard deqlib/*.py deqlib/notebook/*.py deqlib/notebook/*.mplstyle)
PAGES := $(shell find book -type f -not -path '*/.*' -not -name '*.pyc')
NOTEBOOKS := $(filter %.ipynb,$(PAGES))
EQUATIONS := $(addprefix tests/,test_equations.py equation.py second.py conftest.py)
CACHE := _build/.jupyter_cache
NBVAL := -n 2 --dist loadfile --nbval-lax --nbval-current-env book
SINCE = echo "make $(1): $$(( $$(date +%s) - $$start )) s"

# Two processes share two cores below; more threads would only fight over them.
export OPENBLAS_NUM_THREADS := 1
# Only the site needs all pictures of a live figure; see deqlib/notebook/live.py.
_build/.built: export DEQLIB_FRAMES := 1

.PHONY: book test test32 colab pdf serve evidence lock restamp clean
.DELETE_ON_ERROR:

book: $(READY)
	@rm -f _build/.built
	@$(MAKE) --no-print-directory _build/.built

# The old pages go first: a build with warnings must not hide behind an earlier one.
_build/.built: $(READY) $(CACHE)/.made $(PAGES) $(CODE) $(EQUATIONS) _config.yml _toc.yml
	@start=$$(date +%s); set -e; \
	rm -rf _build/html _build/.doctrees; \
	$(PYTEST) tests/test_equations.py & tests=$$!; \
	echo "Executing the notebooks"; \
	yes | $(BIN)/jcache notebook -p $(CACHE) add $(NOTEBOOKS) >_build/execution.log; \
	$(BIN)/jcache project -p $(CACHE) execute -e local-parallel -t 300 \
	  >>_build/execution.log 2>&1; \
	wait $$tests; \
	$(BIN)/jupyter-book build . -W --keep-going -q; \
	touch $@; \
	$(call SINCE,book); \
	echo "The book: $(CURDIR)/_build/html/index.html ('make serve' opens it)"

# Executed notebooks are kept for as long as the code that they call stays the same.
$(CACHE)/.made: $(CODE) constraints.txt
	@rm -rf $(CACHE); mkdir -p $(CACHE); touch $@

# The equations were tested with the build, of which the ledger is a part.
test: $(READY) $(BROUGHT)
	@$(MAKE) --no-print-directory _build/.built
	@start=$$(date +%s); set -e; \
	$(BIN)/ruff check -q .; $(BIN)/ruff format -q --check .; \
	$(BIN)/codespell; $(BIN)/mypy; \
	$(PYTEST) -n 2 tests --ignore tests/test_equations.py; \
	$(PYTEST) $(NBVAL); \
	$(call SINCE,test)

# The same tests and notebooks in float32; pages have no precision.
NO_PAGES := $(patsubst %,--ignore tests/test_%.py,browser house live pdf site workflows)
test32: export JAX_ENABLE_X64 := 0
test32: $(READY)
	@start=$$(date +%s); set -e; \
	$(PYTEST) -n 2 tests $(NO_PAGES); \
	$(PYTEST) $(NBVAL); \
	$(call SINCE,test32)

serve: _build/.built
	@$(BIN)/python -m webbrowser "http://127.0.0.1:$(or $(PORT),8000)" || true
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(or $(PORT),8000)

# The whole book, as a browser prints it.
pdf: $(READY) $(BROUGHT)
	@$(MAKE) --no-print-directory _build/.built
	@start=$$(date +%s); set -e; \
	PYTHONPATH=tests $(BIN)/python book/_ext/pdf.py _build/$(PDF); \
	$(call SINCE,pdf); echo "The book: $(CURDIR)/_build/$(PDF)"

# Executes every notebook and stores what its evidence cells print, and nothing else.
# Some of them, by a part of their names: make evidence ONLY=04
evidence: $(READY)
	@$(BIN)/python book/_ext/evidence.py $(ONLY)

$(READY): requirements.txt constraints.txt pyproject.toml
	@python=; for p in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    2>/dev/null && python=$$p && break; \
	done; \
	test -n "$$python" || { echo "Python 3.11, 3.12 or 3.13 is needed:" \
	  "make PYTHON=/path/to/python" >&2; exit 1; }; \
	set -e; $$python -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -c constraints.txt; \
	touch $@

# A Chromium, for the tests.
$(BROUGHT): $(READY) tests/bring.py
	@$(BIN)/python tests/bring.py
	@touch $@

# Each chapter as in Colab, with the versions that Colab brings; see tests/colab.py.
# The older of its runtimes: make colab COLAB=3.12
colab:
	@start=$$(date +%s); python=; \
	for p in python$(COLAB) $(HOME)/.pyenv/versions/$(COLAB).*/bin/python python3; do \
	  $$p -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(COLAB)")' \
	    2>/dev/null && python=$$p && break; \
	done; \
	test -n "$$python" || { echo "Python $(COLAB) is needed for make colab" >&2; exit 1; }; \
	set -e; $$python -m venv --clear $(TWIN); \
	$(TWIN)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r tests/colab.txt; \
	$(TWIN)/bin/python tests/colab.py; \
	$(call SINCE,colab)

# New versions of everything, for all supported Pythons. Run the tests before committing.
# With another jax than the newest: make lock JAX="==0.7.2"
lock:
	echo "jax$(JAX)" | uv pip compile --universal --python-version 3.11 \
	  --no-emit-package deqlib --no-header --no-annotate --upgrade \
	  requirements.txt - -o constraints.txt

# The repository's address of _config.yml, or a new one (URL=...), in all its places.
restamp: $(READY)
	@$(BIN)/python book/_ext/address.py $(URL)

clean:
	rm -rf _build $(VENV)
