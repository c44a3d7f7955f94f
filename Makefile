# make demo   all set-up, then Label Studio + nextmask with a sample project
# make test   all set-up, then lint, types, import rules and every test (unit, protocol, real Label Studio, browser)
# make coverage  the same tests, and how much of the code they run; takes longer
# make fuzz   TARGET=images: coverage-guided fuzzing of one target, for a minute or ARGS="--seconds 600"
# make check  lint, types and import rules only
# make test-oldest, make test-newest   unit and protocol tests with the lowest versions that setup.cfg declares, and with
#             today's newest, each in an environment of its own (6 GB; make clean deletes it)
# make audit  known advisories and licences of what is installed (docs/dependencies.md); ARGS=--online: fails where it cannot ask
# make load   100 annotators for half an hour, on this machine; ARGS="--minutes 2" for a short one

# The newest Python from 3.11 to 3.14 makes the environments; make PYTHON=/path/to/python chooses one.
PYTHON ?=
NEW := PYTHON='$(PYTHON)' sh scripts/new_environment.sh
VENV := .venv
OLDEST := .venv-oldest
NEWEST := .venv-newest
STUDIO := .venv-label-studio
OLDER := .venv-label-studio-older
CLOUD := .venv-cloud
AUDIT := .venv-audit
LOCUST := .venv-load
BIN := $(VENV)/bin
ARGS ?=
TESTS ?=
WITHOUT_STUDIO = tests/unit tests/protocol tests/strategies
# Some tests: one after the other, so that -s shows what they print.
JOBS ?= $(if $(TESTS),0,2)
PYTEST = -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test coverage test-oldest test-newest ready check lint types imports containers format fuzz audit load clean

demo: $(VENV)/.installed $(STUDIO)/.installed
	$(BIN)/nextmask demo $(ARGS)

test:
	$(MAKE) --jobs=2 --output-sync ready
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) $(TESTS)

coverage:
	$(MAKE) --jobs=2 --output-sync ready
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run $(PYTEST) $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report $(if $(TESTS),--fail-under=0)

# What somebody gets who has the lowest versions that setup.cfg allows. They have no wheels for a newer Python.
test-oldest: $(OLDEST)/bin/uv
	$(OLDEST)/bin/uv pip compile --quiet --python $(OLDEST) --resolution lowest-direct --extra label-studio-ml --extra postgres --extra sam --extra simulation --output-file $(OLDEST)/lowest.txt setup.cfg
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --constraint $(OLDEST)/lowest.txt --editable '.[label-studio-ml,postgres,sam,simulation,dev]'
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --no-deps --requirement requirements/peers.txt
	$(OLDEST)/bin/python scripts/lowest_versions.py
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST) $(WITHOUT_STUDIO)

# What somebody gets who installs today, with a Jinja2 that label-studio-ml would not let in.
test-newest: $(NEWEST)/bin/uv
	echo 'jinja2>=3.1' > $(NEWEST)/overrides.txt
	$(NEWEST)/bin/uv pip install --quiet --python $(NEWEST) --upgrade --override $(NEWEST)/overrides.txt --editable '.[label-studio-ml,postgres,sam,simulation,dev]'
	$(NEWEST)/bin/uv pip install --quiet --python $(NEWEST) --no-deps --requirement requirements/peers.txt
	$(NEWEST)/bin/mypy
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python $(PYTEST) $(WITHOUT_STUDIO)

# Downloads and types take minutes the first time, and one core each.
ready: check $(STUDIO)/.installed $(OLDER)/.installed $(CLOUD)/.installed

check: types lint imports containers

types: $(VENV)/.installed-dev
	$(BIN)/mypy

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

containers: $(VENV)/.installed-dev
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml
	$(BIN)/kubernetes-validate --strict --quiet examples/kubernetes.yaml

# Looks for inputs by coverage: make fuzz TARGET=images ARGS="--seconds 600"; TARGETS of tests/fuzz/targets.py
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/fuzz.txt
	$(BIN)/python tests/fuzz/run.py $(TARGET) $(ARGS)

audit: $(VENV)/.installed-dev $(AUDIT)/.installed
	$(AUDIT)/bin/python scripts/audit.py $(BIN)/python $(ARGS)

load: $(VENV)/.installed $(STUDIO)/.installed $(LOCUST)/.installed
	$(BIN)/python benchmarks/load.py $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps make second runs start in seconds; a changed dependency list installs again.
$(VENV)/.installed: setup.cfg pyproject.toml requirements/constraints.txt
	@echo "Installing nextmask into $(VENV), once: 6 GB, most of it PyTorch. pip is silent meanwhile, for minutes."
	test -x $(BIN)/python || $(NEW) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[label-studio-ml,simulation]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev,sam]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/peers.txt
	touch $@

$(OLDEST)/bin/uv: requirements/uv.txt
	test -x $(OLDEST)/bin/python || PYTHON='$(or $(PYTHON),python3.11)' sh scripts/new_environment.sh $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	touch $@

$(NEWEST)/bin/uv: requirements/uv.txt
	test -x $(NEWEST)/bin/python || $(NEW) $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	touch $@

# Label Studio pins other versions of our dependencies: it gets an environment of its own.
$(STUDIO)/.installed: requirements/label-studio.txt
	@echo "Installing Label Studio into $(STUDIO), once: 1 GB, which takes minutes as well."
	test -x $(STUDIO)/bin/python || $(NEW) $(STUDIO) 3.13
	$(STUDIO)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/label-studio.txt
	touch $@

$(OLDER)/.installed: requirements/label-studio-older.txt
	test -x $(OLDER)/bin/python || $(NEW) $(OLDER) 3.12
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/label-studio-older.txt
	touch $@

# The S3 server of the tests wants another Flask than label-studio-ml.
$(CLOUD)/.installed: requirements/cloud.txt
	test -x $(CLOUD)/bin/python || $(NEW) $(CLOUD)
	$(CLOUD)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/cloud.txt
	touch $@

$(AUDIT)/.installed: requirements/audit.txt
	test -x $(AUDIT)/bin/python || $(NEW) $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audit.txt
	touch $@

# locust needs a newer Flask than label-studio-ml allows.
$(LOCUST)/.installed: requirements/load.txt
	test -x $(LOCUST)/bin/python || $(NEW) $(LOCUST)
	$(LOCUST)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/load.txt
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(NEWEST) $(STUDIO) $(OLDER) $(CLOUD) $(AUDIT) $(LOCUST) .nextmask build *.egg-info .coverage*
