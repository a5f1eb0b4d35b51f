# Two commands for a newcomer: `make demo` and `make test`. Both make .venv first, once.
#
#   make demo                        watch the clip that ships with Millpond, and ask about it
#   make test                        run the tests; make test ARGS='-k memory -x' for some of them
#   make test WORKERS=0              one after the other, in one process
#   make test ARGS='-m long'         the tests of several minutes, which are left out otherwise
#   make lint                        check the style
#   make venv                        only make .venv, with what tests need
#   make demo PYTHON=python3.12      with another Python (3.11 or newer)

PYTHON ?= python3
VENV := .venv
ARGS ?=
# A file's tests stay together, and share what they start. Each worker loads torch: more of them need more memory.
WORKERS ?= 2
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: demo test lint venv clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	@$(VENV)/bin/millpond demo

test: $(VENV)/.installed-test
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-test
	@$(VENV)/bin/ruff check .

venv: $(VENV)/.installed-test

clean:
	rm -rf $(VENV) build dist *.egg-info

# The stamps say that an install ended well; what was interrupted is done again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Millpond needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=...")'
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Millpond and what it needs into $(VENV) (minutes, the first time)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Millpond, what it needs and what its tests need into $(VENV) (minutes, the first time)"
	@$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.installed
