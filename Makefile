# make book    execute every chapter and build the pages
# make test    lint, unit tests, equation ledger, notebooks, the pages in a browser
# make quick   the part of it that takes a minute: lint, and the tests that fail first
# make test32  unit tests, equations and notebooks once more, in float32
# make colab   each chapter in an environment like Colab's
# make pdf     print the whole book
# make slides  a deck for each chapter
# make student     the notebooks without solutions; with numbers of its own: SEED=2027
# make instructor  the same with solutions and the mistakes to expect
# make grade       runs and checks the notebooks in FOLDER=...
# make lab     JupyterLab, to edit the chapters
# make bench   deqlib's times beside those of its peers
# make mutants deqlib's mathematics, changed in one place at a time: do the tests see it?
# book, test, slides and evidence take ONLY=04: the notebooks whose name contains it.
# All set up .venv by themselves. PYTHON=/path/to/python names an interpreter
# (3.11, 3.12 or 3.13); otherwise the first suitable one is taken.

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q -p no:nbval
READY := $(VENV)/.ready
BROUGHT := $(VENV)/.brought
PDF := differentiating-equilibria.pdf
COLAB ?= 3.13
TWIN := $(VENV)-colab-$(COLAB)
MUTANTS := $(VENV)-mutants
CODE := $(wildcard deqlib/*.py deqlib/notebook/*.py deqlib/notebook/*/*.py \
  deqlib/notebook/*.mplstyle)
PAGES := $(shell find book -type f -not -path '*/.*' -not -name '*.pyc')
NOTEBOOKS := $(filter %.ipynb,$(PAGES))
EQUATIONS := $(addprefix tests/,test_equations.py equation.py second.py conftest.py)
CACHE := _build/.jupyter_cache
ONLY :=
CHAPTERS := $(foreach n,$(NOTEBOOKS),$(if $(findstring $(ONLY),$(notdir $(n))),$(n)))
# It takes a second to import: only notebooks need it.
NBVAL := $(BIN)/python -m pytest -q --nbval-lax --nbval-current-env
SINCE = echo "make $(1): $$(( $$(date +%s) - $$start )) s"

# Two processes share two cores below; more threads would only fight over them.
export OPENBLAS_NUM_THREADS := 1
# JAX keeps each program that it has compiled, for tests and notebooks alike. An entry
# holds for one kind of CPU. Where XLA refuses what it reads, it says so on standard
# error (jax issue 38445) and compiles as before: then a chapter must not fail for it.
CPU := $(shell { uname -m; grep -E '^(model name|flags|Features)' /proc/cpuinfo; \
  sysctl -n machdep.cpu.brand_string; } 2>/dev/null | sort -u | cksum | cut -d' ' -f1)
export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/_build/programs-$(CPU)
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: book book-of-one quick test test-of-one test32 colab student instructor grade lab pdf slides serve evidence bench mutants lock restamp clean
.DELETE_ON_ERROR:

book: $(READY)
	@$(if $(ONLY),,rm -f _build/.built)
	@$(MAKE) --no-print-directory $(if $(ONLY),book-of-one,_build/.built)

# The old pages go first: a build with warnings must not hide behind an earlier one.
_build/.built: $(READY) $(CACHE)/.made $(PAGES) $(CODE) $(EQUATIONS) _config.yml _toc.yml
	@start=$$(date +%s); set -e; \
	rm -rf _build/html _build/.doctrees _build/notebooks; \
	$(PYTEST) tests/test_equations.py & tests=$$!; \
	$(BIN)/python book/_ext/execute.py || { kill $$tests; exit 1; }; \
	wait $$tests; \
	$(BIN)/jupyter-book build . -W --keep-going -q; \
	touch $@; \
	$(call SINCE,book); \
	echo "The book: $(CURDIR)/_build/html/index.html ('make serve' opens it)"

# One page to look at, in _build/only: what it says of other pages leads nowhere.
book-of-one: $(CACHE)/.made
	@set -e; $(BIN)/python book/_ext/execute.py $(ONLY); \
	for page in $(basename $(CHAPTERS)); do \
	  $(PYTEST) tests/test_equations.py --page $$(basename $$page) || test $$? = 5; \
	  echo "{format: jb-book, root: book/appendices/bibliography," \
	    "chapters: [{file: $$page}]}" >_build/only.yml; \
	  $(BIN)/jupyter-book build . --toc _build/only.yml --path-output _build/only \
	    --all -qq >_build/only.log; \
	  echo "The page: $(CURDIR)/_build/only/_build/html/$$page.html"; \
	done

# Executed notebooks are kept for as long as the code that they call stays the same.
$(CACHE)/.made: $(READY) $(CODE) constraints.txt
	@rm -rf $(CACHE); mkdir -p $(CACHE); touch $@

# What is quick and fails first.
QUICK := $(patsubst %,tests/test_%.py,check house ledger models solvers workflows)
_build/.quick: $(READY) $(PAGES) $(CODE) $(wildcard tests/*.py)
	@set -e; mkdir -p _build; \
	$(BIN)/ruff check -q .; $(BIN)/ruff format -q --check .; \
	$(BIN)/codespell; $(BIN)/mypy; \
	$(PYTEST) $(QUICK); \
	touch $@

quick: _build/.quick

# The build ran the equations' tests, for the ledger, and the notebooks, whose evidence is
# compared with what is stored. They are not run a second time. A test in a browser mostly
# waits for it, so that three processes keep two cores busy.
test: $(READY) $(if $(ONLY),,_build/.quick $(BROUGHT))
	@$(MAKE) --no-print-directory $(if $(ONLY),test-of-one,_build/.built)
	@test -n "$(ONLY)" || { start=$$(date +%s); set -e; \
	$(PYTEST) -n 3 --dist worksteal --durations 10 -m "not alone" tests $(patsubst \
	  %,--ignore %,tests/test_equations.py $(QUICK)); \
	$(PYTEST) -m alone tests; \
	$(call SINCE,test); }

test-of-one: $(READY)
	@set -e; for page in $(basename $(CHAPTERS)); do \
	  $(PYTEST) tests/test_equations.py --page $$(basename $$page) || test $$? = 5; \
	  $(PYTEST) tests/test_notebooks.py -k $$(basename $$page); \
	  $(NBVAL) $$page.ipynb; \
	done

# The same tests and notebooks in float32; pages have no precision.
NO_PAGES := $(patsubst %,--ignore tests/test_%.py,ask browser course execute house jupyter live pdf plain \
  site slides workflows) --deselect tests/test_package.py::test_the_types_are_those_of_the_functions
test32: export JAX_ENABLE_X64 := 0
test32: $(READY)
	@start=$$(date +%s); set -e; \
	$(PYTEST) -n 2 --dist worksteal -m "not alone" tests $(NO_PAGES); \
	$(PYTEST) -m alone tests $(NO_PAGES); \
	$(NBVAL) -n 2 --dist loadfile book; \
	$(call SINCE,test32)

# JupyterLab, for editing the chapters.
lab: $(READY)
	@$(BIN)/jupyter lab --config book/_ext/lab.py book

student instructor: $(READY)
	@$(MAKE) --no-print-directory _build/.built
	@$(BIN)/python book/_ext/course.py $@ $(if $(SEED),--seed $(SEED))

# No sandbox: what is handed in runs with your rights.
grade: $(READY)
	@test -n "$(FOLDER)" || { echo "FOLDER: name a folder of notebooks," \
	  "make grade FOLDER=..." >&2; exit 1; }
	@$(MAKE) --no-print-directory _build/.built
	@start=$$(date +%s); set -e; \
	$(BIN)/python book/_ext/grade.py "$(FOLDER)" $(if $(SEED),--seed $(SEED)) \
	  $(if $(LIMIT),--limit $(LIMIT)); \
	$(call SINCE,grade)

serve: _build/.built
	@$(BIN)/python -m webbrowser "http://127.0.0.1:$(or $(PORT),8000)" || true
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(or $(PORT),8000)

# The whole book, as a browser prints it.
pdf: $(READY) $(BROUGHT)
	@$(MAKE) --no-print-directory _build/.built
	@start=$$(date +%s); set -e; \
	PYTHONPATH=tests $(BIN)/python book/_ext/pdf.py _build/$(PDF); \
	$(call SINCE,pdf); echo "The book: $(CURDIR)/_build/$(PDF)"

slides: $(READY)
	@$(MAKE) --no-print-directory _build/.built
	@$(BIN)/python book/_ext/slides.py $(ONLY)

# Executes every notebook and stores what its evidence cells print, and nothing else.
# Some of them, by a part of their names: make evidence ONLY=04
evidence: $(CACHE)/.made
	@$(BIN)/python book/_ext/evidence.py $(ONLY)

# Times of deqlib and of its peers. A part of them: make bench ARGS="--quick --only hvp"
bench: $(READY)
	@$(BIN)/python benchmarks/bench.py $(ARGS)

# Hours: a module or a random share of the mutants, make mutants ONLY=linear SHARE=0.1.
# Of those run, 95 % have to be killed, and tests/mutants.toml says why the others live.
mutants: $(READY) $(MUTANTS)/.ready
	@start=$$(date +%s); set -e; \
	$(MUTANTS)/bin/python tests/mutants.py $(ONLY) \
	  --python $(abspath $(BIN)/python) --share $(or $(SHARE),1) --seed $(or $(SEED),0); \
	$(call SINCE,mutants)

$(MUTANTS)/.ready: $(READY) tests/mutants.txt
	@$(BIN)/python -m venv --clear $(MUTANTS)
	@$(MUTANTS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r tests/mutants.txt -c constraints.txt
	@touch $@

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

# The plain notebooks as in Colab, with the versions that Colab brings; see tests/colab.py.
# The older of its runtimes: make colab COLAB=3.12
colab: $(READY)
	@$(MAKE) --no-print-directory _build/.built
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
