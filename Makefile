# For GNU make 3.81 (macOS) and later. Needs Python 3.11 or newer, and nothing else.
#
#   PYTHON=python3.12     the interpreter .venv is built with (default: the one it has, else python3)
#   PIP_OPTIONS="..."     options for pip, for example the index of torch's CPU build (README.md)
#   LAB_OPTIONS="..."     options for JupyterLab, for example --no-browser --port=8890
#   LESSON=03             the lesson that reset, record and test-lesson mean
#   JOBS=2                test processes

SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2

.PHONY: help
help:
	@echo "make lab                 set up, copy new lessons to my_lessons/, open JupyterLab there"
	@echo "make test                set up, then everything CI runs: lint, types, tests, lessons"
	@echo "make reset LESSON=03     bring one lesson back as it came (yours is kept beside it)"
	@echo "make record LESSON=03    run one lesson in notebooks/ in a fresh kernel and store its outputs"
	@echo "make test-lesson LESSON=03   validate one lesson twice, and its canaries"
	@echo "make test-slow           play every trained policy again, and compare scores (minutes)"
	@echo "make test-portable       validate every lesson with the plainest CPU arithmetic"
	@echo "make lock                renew requirements.lock from pyproject.toml"

# ---- set-up ---------------------------------------------------------------------------------------------------------

# The Python version of .venv; empty unless its interpreter works and pip is whole (pip writes its RECORD last).
FOUND := $(shell $(BIN)/python -c 'import sys; from importlib.metadata import files; \
	print("%d.%d" % sys.version_info[:2] if files("pip") else "")' 2>/dev/null)
WANTED := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null),$(FOUND))
INTERPRETER := $(or $(PYTHON),python3)
NEW_VENV := $(if $(and $(FOUND),$(filter $(FOUND),$(WANTED))),,new-venv)

.PHONY: setup new-venv lock
setup: $(READY)

# The stamp is removed first and written last: a set-up that is stopped in between starts again.
$(READY): requirements.lock pyproject.toml $(NEW_VENV)
	@rm -f $@
	$(PIP) install $(PIP_OPTIONS) -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

TOO_OLD = TRPO Lessons needs Python 3.11 or newer and $(INTERPRETER) is %d.%d: name another, as in PYTHON=python3.12
new-venv:
	@command -v $(INTERPRETER) >/dev/null || { echo "No $(INTERPRETER) here: install Python 3.11 or newer." >&2; exit 2; }
	@$(INTERPRETER) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "$(TOO_OLD)" % v)'
	@rm -f $(READY)
	$(INTERPRETER) -m venv --clear .venv

# torch's own metadata names the CUDA packages that its build needs, so the lock leaves them to it.
lock: $(READY)
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --all-extras \
		--annotation-style line --no-header pyproject.toml > .venv/lock.all
	{ echo "# Exact versions for Linux and macOS, Python 3.11 and newer. Made by 'make lock' from pyproject.toml (uv pip"; \
	  echo "# compile --universal), without the CUDA packages, which torch brings where its build needs them."; \
	  grep -Ev '^(nvidia-|cuda-|triton)' .venv/lock.all; } > .venv/lock.new
	mv .venv/lock.new requirements.lock

# ---- lessons --------------------------------------------------------------------------------------------------------

AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
NEED_LESSON = @ls notebooks/$(LESSON)_*.ipynb >/dev/null 2>&1 || \
	{ echo "Name a lesson that there is, for example: make $@ LESSON=00" >&2; exit 2; }

# Students' copies come without outputs, so that no answer stands under its question, and without the explorers that the
# recording held, which have no kernel any more. They are made in another folder first, so that an interrupted one is never
# taken for a student's work.
COMING := my_lessons/.coming
WITHOUT_OUTPUTS = rm -rf $(COMING) && $(BIN)/python -m nbconvert --log-level=ERROR --to notebook \
	--ClearOutputPreprocessor.enabled=True --ClearMetadataPreprocessor.enabled=True \
	--ClearMetadataPreprocessor.clear_cell_metadata=False \
	--ClearMetadataPreprocessor.preserve_nb_metadata_mask=kernelspec \
	--ClearMetadataPreprocessor.preserve_nb_metadata_mask=language_info \
	--NbConvertApp.use_output_suffix=False --output-dir $(COMING)

# JupyterLab's terminals find the course's commands, also where a ~/.bashrc puts another Python first (conda, pyenv),
# and its targets: my_lessons/Makefile passes on what it is asked for.
RC := .venv/terminal.bashrc
TERMINALS = --ServerApp.terminado_settings="{'shell_command': ['bash', '--rcfile', '$(CURDIR)/$(RC)']}"

.PHONY: lab reset record
lab: $(READY)
	@mkdir -p my_lessons
	@printf '%%: ; @make --no-print-directory -C .. $$@\nMakefile: ;\n' > my_lessons/Makefile
	@printf '[ ! -f ~/.bashrc ] || . ~/.bashrc\nPATH="%s:$$PATH"\n' "$(CURDIR)/$(BIN)" > $(RC)
	@new=""; for lesson in notebooks/*.ipynb; do test -e "my_lessons/$${lesson#notebooks/}" || new="$$new $$lesson"; done; \
		test -z "$$new" || { $(WITHOUT_OUTPUTS) $$new && mv $(COMING)/*.ipynb my_lessons/ && rmdir $(COMING); }
	cd my_lessons && ../$(BIN)/jupyter lab --ip=127.0.0.1 $(AS_ROOT) $(TERMINALS) \
		--LabApp.default_url=/lab/tree/00_start_here.ipynb $(LAB_OPTIONS)

reset: $(READY)
	$(NEED_LESSON)
	@mkdir -p my_lessons
	@$(WITHOUT_OUTPUTS) notebooks/$(LESSON)_*.ipynb
	@for lesson in notebooks/$(LESSON)_*.ipynb; do mine="my_lessons/$$(basename "$$lesson" .ipynb)"; \
		kept="$$mine.$$(date +%Y-%m-%d-%H%M%S).ipynb"; \
		if test -e "$$mine.ipynb"; then mv "$$mine.ipynb" "$$kept" && echo "Yours is kept as $$kept"; fi; \
		mv "$(COMING)/$$(basename "$$lesson")" "$$mine.ipynb" && echo "$$mine.ipynb is as it came"; done; \
		rmdir $(COMING)

record: $(READY)
	$(NEED_LESSON)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		notebooks/$(LESSON)_*.ipynb

# ---- tests ----------------------------------------------------------------------------------------------------------

PYTEST := $(BIN)/python -m pytest -n $(JOBS)

.PHONY: test test-lesson test-slow test-portable
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) --dist worksteal

test-lesson: $(READY)
	$(NEED_LESSON)
	$(PYTEST) --dist worksteal tests/test_notebooks.py -k test_lesson --lesson $(LESSON)

test-slow: $(READY)
	$(PYTEST) --dist worksteal -m slow

# What is stored in a lesson must not depend on the CPU it was made on.
test-portable: $(READY)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default OPENBLAS_CORETYPE=NEHALEM MKL_CBWR=COMPATIBLE \
		$(PYTEST) --dist loadfile --nbval notebooks
