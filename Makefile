# The two commands of the README are `make demo` and `make test`. Both make their own environment.
PYTHON ?= python3
# A worker takes half of the tests, so that files stay together; who is done early takes from others.
ON_ALL_CORES = -n auto --dist worksteal
# Python keeps what it compiled of the tests, which takes 5 s of every worker's start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: docs demo test test-all mutate chaos soak bench lint check format clean

demo: .venv/installed
	.venv/bin/codistill demo

test: .venv-test/installed
	.venv-test/bin/python -m pytest $(ON_ALL_CORES) -m "not slow and not long"

test-all: .venv-test/all
	.venv-test/bin/python -m pytest $(ON_ALL_CORES)

mutate: .venv-test/installed
	.venv-test/bin/python tests/mutate.py

# Kills, damage, full disks, signals: 10 minutes, or CHAOS_MINUTES=60.
chaos: .venv-test/installed
	.venv-test/bin/python tests/chaos.py

# An hour of training in one process: memory, open files, threads and processes have to stay flat.
soak: .venv-test/installed
	.venv-test/bin/python tests/soak.py

# Short versions of all benchmarks, compared with benchmarks/ratios.json: about 10 minutes.
bench: .venv-test/installed benchmarks/.venv-libraries/installed
	.venv-test/bin/python benchmarks/bench.py

# Into site/. A warning ends it.
docs: .venv-test/all
	.venv-test/bin/python docs/site/build.py

lint: .venv-test/installed
	.venv-test/bin/ruff format --check .
	.venv-test/bin/ruff check .
	.venv-test/bin/mypy

# What CI runs.
check: lint
	.venv-test/bin/python -m pytest $(ON_ALL_CORES) -m "not slow"

format: .venv-test/installed
	.venv-test/bin/ruff format .
	.venv-test/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-test benchmarks/.venv-libraries

# Installed anew when what is to be installed has changed. torch==2.13.0 first and by itself: the
# packages that need it then find it, and no newer one is fetched.
.venv/installed: EXTRAS = digits,report
.venv-test/installed: EXTRAS = dev
# Tests compile what they import, which is little: half a minute less than to compile all at once.
.venv-test/installed .venv-test/all: COMPILE = --no-compile
.venv/installed .venv-test/installed: pyproject.toml constraints.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(COMPILE) --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(@D)/bin/pip install $(COMPILE) --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

# What only slow tests and the site of documents need.
.venv-test/all: .venv-test/installed
	$(@D)/bin/pip install $(COMPILE) --quiet --disable-pip-version-check -c constraints.txt -e ".[dev-all]"
	touch $@

# Other libraries that ours is measured against. Theirs is without what they ask for: see the file.
benchmarks/.venv-libraries/installed: benchmarks/libraries.txt constraints.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(@D)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt jaxtyping matplotlib tensorboard torchvision tqdm
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/libraries.txt
	touch $@
