PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What nbstripout removes besides outputs and counts: what papermill and Jupyter note of an execution.
OF_KERNEL := $(addprefix metadata.language_info.,codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer version)
STRIP := --keep-id --drop-empty-cells --extra-keys "metadata.papermill cell.metadata.papermill $(OF_KERNEL)"

.PHONY: report test slow bench sample lint lock lab clean help

help: ## Show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

report: $(READY) ## Run the embedded demo and publish reports/demo/index.html
	$(BIN)/deit-report run params/demo.yaml

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

slow: $(READY) ## Simulate what intervals and verdicts are worth and compare docs/calibration.md
	$(BIN)/python -m pytest -m slow

bench: $(READY) ## Time the pipeline beside timm over your JPEGs: make bench IMAGES=folder
	$(BIN)/python tests/benchmarks/bench.py --images "$(IMAGES)"

lint: $(READY) ## Check style, types, layers and that notebooks are stripped
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify $(STRIP) notebooks/*.ipynb

sample: $(READY) ## Make docs/sample, a small report to look at, and its screenshots (needs Chromium)
	$(BIN)/deit-report run params/demo.yaml -b 1 -b 8 -s run=sample
	rm -rf docs/sample
	mkdir -p docs/sample
	cd reports/sample && cp --parents index.html */*.html ../../docs/sample/
	find docs/sample -name '*.html' -exec sed -i 's|$(CURDIR)/||g' {} + # the pages name their spec
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1500 \
	  --screenshot=docs/report.png docs/sample/index.html

lab: $(READY) ## Open the notebooks in Jupyter: make lab ARGS=--no-browser
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks --FileContentsManager.post_save_hook=deit_helpers.lab.mark_clean $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

lock: $(READY) ## Pin the newest versions that pyproject.toml admits
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
	  --no-emit-index-url --no-header --no-annotate --constraint constraints.txt --upgrade --output-file requirements.lock

clean: ## Remove the environment and all runs
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find reports -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

# The last lines build matplotlib's font cache, which would otherwise happen, and be announced, inside a notebook, and tell a
# git checkout to leave out of a notebook what Jupyter saves with it (.gitattributes).
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -c 'import matplotlib.font_manager'
	test ! "$$(git rev-parse --show-toplevel 2>/dev/null)" -ef . || git config filter.notebook.clean '"$(CURDIR)/$(BIN)/nbstripout" $(STRIP)'
	touch $(READY)
