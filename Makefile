# make book    execute every chapter and build the pages
# make test    lint, unit tests, equation ledger, notebooks, links of the built book
# Each sets up .venv by itself; PYTHON=… picks the interpreter (3.11, 3.12 or 3.13).

VENV ?= .venv
BIN := $(VENV)/bin
HTML := _build/html
SECONDS_FROM = echo "$(1): $$(( $$(date +%s) - $$start )) s"
SOURCES := $(shell find book deqlib -type f -not -path '*/.*' -not -name '*.pyc') \
           _config.yml _toc.yml constraints.txt

.PHONY: book test serve evidence lock clean
.DELETE_ON_ERROR:

book: $(VENV)/.ready $(HTML)/../.executed
	@rm -f $(HTML)/.built
	@$(MAKE) --no-print-directory $(HTML)/.built

$(HTML)/.built: $(SOURCES) | $(VENV)/.ready $(HTML)/../.executed
	@start=$$(date +%s); set -e; \
	rm -rf $(HTML) _build/.doctrees; \
	$(BIN)/python -m pytest -q tests/test_equations.py; \
	$(BIN)/jupyter-book build . -W --keep-going -q; \
	touch $@; \
	$(call SECONDS_FROM,make book); \
	echo "The book is at $(CURDIR)/$(HTML)/index.html (make serve opens it)"

# Executed chapters are kept in _build/.jupyter_cache, as long as the code that they
# call stays the same.
$(HTML)/../.executed: $(wildcard deqlib/*.py deqlib/notebook/*) constraints.txt
	@rm -rf _build/.jupyter_cache; mkdir -p _build; touch $@

test: $(VENV)/.ready
	@$(MAKE) --no-print-directory $(HTML)/.built
	@start=$$(date +%s); set -e; \
	$(BIN)/ruff check .; \
	$(BIN)/ruff format --check .; \
	$(BIN)/codespell; \
	$(BIN)/mypy; \
	$(BIN)/python -m pytest -q tests/test_equations.py; \
	$(BIN)/python -m pytest -q -n 2 --dist loadscope tests --ignore tests/test_equations.py; \
	JAX_ENABLE_X64=0 $(BIN)/python -m pytest -q -n 2 --dist loadscope tests -m float32; \
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env book; \
	$(call SECONDS_FROM,make test)

serve: $(HTML)/.built
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) $(or $(PORT),8000)

# Executes every notebook and stores what its evidence cells print, and nothing else.
evidence: $(VENV)/.ready
	$(BIN)/python book/_ext/evidence.py

$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@python=; for p in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    2>/dev/null && python=$$p && break; \
	done; \
	test -n "$$python" || { echo "make: Python 3.11, 3.12 or 3.13 is needed;" \
	  "PYTHON=/path/to/python names one" >&2; exit 1; }; \
	set -e; $$python -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -c constraints.txt
	@touch $@

# New versions of everything, for all supported Pythons; run the tests before committing.
lock:
	uv pip compile --universal --python-version 3.11 --no-emit-package deqlib \
	  --no-header --no-annotate --upgrade requirements.txt -o constraints.txt

clean:
	rm -rf _build $(VENV)
