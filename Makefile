# make demo      train the same network without mixing, with MixUp and with CutMix, and draw a picture
# make test      the fast tests on the TensorFlow backend, while one waits
# make test-all  all tests on TensorFlow, JAX and PyTorch, with the coverage of the last; test-tensorflow, test-jax and
#                test-torch run the tests of one of them; what is alike runs once, with OPTIONS=--everywhere on each
# make test-oldest   some tests with the oldest Keras, NumPy and JAX that kmix takes; test-nightly the fast ones with the
#                nightly of Keras
# make lint      ruff, mypy and codespell
# make docs      the site, in docs/_build/html; docs-fast without the gallery, docs-open serves it, docs-check opens each
#                page in Chromium
# make compare   compare kmix with keras.layers.MixUp and CutMix, problem by problem, and with MONAI, Keras' nightly Mosaic,
#                and the formulas of ultralytics and torch-audiomentations
# make speed     measure throughput in tf.data next to Keras, KerasCV, and the formulas of torchvision and timm, and the
#                cost of labels for very many classes; write both to RESULTS.md
# make code-paths     measure every code path of a batch to a layer, on the three backends and in two loaders, next to one
#                pass over the memory and the formulas of torchvision and timm; write the times and the memory to RESULTS.md
# make targets   measure masks, boxes and Mosaic in tf.data next to CutMix of images alone; write them to RESULTS.md
# make audio     measure AudioMix in tf.data next to MixUp and one pass over the memory; write it to RESULTS.md
# make scale     one plan and one training on any number of devices and processes; the bytes that devices send each other;
#                the examples with Grain's elastic iterator and with Ray, which takes 620 MB
# make in-step   measure the cost of mixing in the training step, on the three backends
# make soak      mix generated batches for MINUTES on each code path, and compare them with the formulas
# make fuzz      make bad calls of everything public, on the three backends: each must raise a clear error
# make faults    kill trainings that save, 20 times on each backend: each must end like one that was not killed; and
#                kill a worker of the tf.data service: what arrives must be right
# make mutation  change the operators, numbers and comparisons of plans and geometry one by one: which does no test notice?
# make memory    does memory grow? STEPS steps of each kind, on the three backends
# make versions  run tests with other versions of Python, Keras and the frameworks; write tests/versions.md
# make dist      build the wheel and the source distribution, and check them
# make release   prepare VERSION=...: see RELEASING.md; with DRY=1 in a copy alone
# make mutants   break kmix on purpose and check that a test notices, on every code path and backend
# make mutants-short  some of these mutants, on one backend

PYTHON ?= python3
# The newest PyTorch from the package index brings several GB of CUDA libraries; any version works.
TORCH ?= torch==2.13.0
# The oldest that kmix declares, and the SciPy that goes with them.
OLDEST ?= keras==3.12.0 numpy==1.25.2 jax==0.4.35 jaxlib==0.4.35 "scipy<1.14"
PEERS ?= monai==1.6.1 keras-nightly==3.16.0.dev2026102704
BACKENDS ?= tensorflow jax torch

BIN := .venv/bin
RUN := TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python
PIP := $(BIN)/pip install -q --disable-pip-version-check
# Parallel workers; each needs a core and about 2 GB of memory.
WORKERS ?= 2
PYTEST := $(RUN) -m pytest -q -n $(WORKERS) --dist worksteal $(OPTIONS)
# Tracing takes a third of the time, so it is left to the fastest runs. Each adds to the coverage of the previous ones.
COV := --cov --cov-append --cov-report=

PORT ?= 8000

.PHONY: docs docs-fast docs-open docs-check demo test test-tensorflow test-extras test-jax test-torch test-all coverage test-oldest test-nightly lint compare speed targets audio code-paths in-step scale soak fuzz faults memory mutation versions dist release mutants mutants-short clean

demo: .venv/.ready
	$(RUN) examples/quickstart.py

test: .venv/.ready
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow"

test-tensorflow: .venv/.ready
	KERAS_BACKEND=tensorflow $(PYTEST)

test-jax: .venv/.ready-all
	KERAS_BACKEND=jax $(PYTEST)

test-torch: .venv/.ready-all
	KERAS_BACKEND=torch $(PYTEST) $(COV)

# The tests that `make test-tensorflow` skips because packages are missing.
EXTRAS := keras_cv or keras_hub or keras_tuner or hugging_face or torch_loader or test_pytorch
test-extras: .venv/.ready-all
	rm -f .coverage*
	KERAS_BACKEND=tensorflow $(PYTEST) tests -k "$(EXTRAS)" $(COV)

test-all: test-tensorflow test-jax test-extras test-torch test-oldest coverage

coverage: .venv/.ready
	$(BIN)/coverage report --fail-under=95

test-oldest: .venv/.ready-all
	$(PIP) --no-warn-conflicts --upgrade --target .venv/oldest $(OLDEST)
	PYTHONPATH=.venv/oldest KERAS_BACKEND=jax KMIX_TEST_WITHOUT_TENSORFLOW=1 \
	    $(PYTEST) --everywhere tests/test_code_paths.py tests/test_numpy.py tests/test_trainer.py $(COV)

# The fast tests with the newest development version of Keras.
test-nightly: .venv/.ready-all
	$(PIP) --no-deps --pre --upgrade --target .venv/nightly keras-nightly
	for backend in $(BACKENDS); do \
	    PYTHONPATH=.venv/nightly KERAS_BACKEND=$$backend $(PYTEST) -m "not slow" || exit 1; done

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

SPHINX := $(BIN)/python -m sphinx -W -n --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
# What earlier builds generated would warn, or stay after its source has gone.
GENERATED := docs/_build docs/gallery docs/api/generated docs/api/backreferences docs/sg_execution_times.rst

docs: .venv/.ready-docs
	rm -rf $(GENERATED)
	TF_CPP_MIN_LOG_LEVEL=3 $(SPHINX)

docs-fast: .venv/.ready-docs
	rm -rf $(GENERATED)
	DOCS_FAST=1 TF_CPP_MIN_LOG_LEVEL=3 $(SPHINX)

docs-open:
	cd docs/_build/html && ../../../$(BIN)/python -m http.server --bind 127.0.0.1 $(PORT)

docs-check: .venv/.ready-docs
	$(BIN)/python docs/check.py

targets: .venv/.ready-all
	$(RUN) benchmarks/targets.py --save

audio: .venv/.ready-all
	$(RUN) benchmarks/audio.py --save

# A peer that cannot be installed is left out of the table.
compare: .venv/.ready-all
	for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(RUN) benchmarks/compare.py || exit 1; done
	-$(BIN)/pip install -q --no-deps --upgrade --target .venv/peers $(PEERS)
	PYTHONPATH=.venv/peers $(RUN) benchmarks/compare_others.py

speed: .venv/.ready-all
	$(RUN) benchmarks/speed.py
	for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(RUN) benchmarks/pairs.py --save || exit 1; done

code-paths: .venv/.ready-all
	$(RUN) benchmarks/code_paths.py --save

scale: .venv/.ready-ray
	$(RUN) benchmarks/scale.py --save
	KERAS_BACKEND=numpy $(RUN) examples/grain_elastic.py
	$(RUN) examples/ray_pipeline.py

in-step: .venv/.ready-all
	$(RUN) benchmarks/in_step.py --all-backends --save

# Each for MINUTES: NumPy, tensors of the three backends, and tf.data.
MINUTES ?= 5
soak: .venv/.ready-all
	$(RUN) tests/soak.py --minutes $(MINUTES)
	for backend in $(BACKENDS); do \
	    KERAS_BACKEND=$$backend $(RUN) tests/soak.py --path native --minutes $(MINUTES) || exit 1; done
	$(RUN) tests/soak.py --path tfdata --minutes $(MINUTES)

faults: .venv/.ready-all
	for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(RUN) tests/faults.py || exit 1; done
	$(RUN) tests/faults.py --service

versions: .venv/.pip
	$(BIN)/python tools/versions.py

# The tests run on PyTorch without TensorFlow, in forks of one process. mutmut 3.8 needs pytest 9.0.
mutation: .venv/.ready-all
	rm -rf mutants
	$(PIP) --upgrade --target .venv/mutmut mutmut==3.8.0 "pytest<9.1"
	PYTHONPATH=.venv/mutmut KERAS_BACKEND=torch KMIX_TEST_WITHOUT_TENSORFLOW=1 OMP_NUM_THREADS=1 \
	    $(RUN) -m mutmut run --max-children $(WORKERS)
	PYTHONPATH=.venv/mutmut $(RUN) tools/mutation.py

STEPS ?= 1000000
memory: .venv/.ready-all
	for backend in $(BACKENDS); do \
	    MALLOC_ARENA_MAX=1 KERAS_BACKEND=$$backend $(RUN) tests/memory.py --steps $(STEPS) || exit 1; done

fuzz: .venv/.ready-all
	for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(RUN) tests/fuzz.py || exit 1; done

# One commit gives the same bytes: times are that of the commit, and nothing tells who built the files.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: .venv/.ready-release
	rm -rf build dist kmix.egg-info
	umask 022 && $(BIN)/python -m build -o dist > /dev/null
	cd dist && for file in *.tar.gz; do name=$${file%.tar.gz}; tar -xzf $$file && tar --sort=name \
	    --mtime=@$$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - $$name \
	    | gzip -9n > $$file.new && mv $$file.new $$file && rm -r $$name || exit 1; done
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/validate-pyproject pyproject.toml

release: .venv/.ready
	$(BIN)/python tools/release.py "$(VERSION)" $(if $(DRY),--dry)

mutants: .venv/.ready-all
	$(RUN) tests/mutants.py

mutants-short: .venv/.ready-all
	$(RUN) tests/mutants.py --short --backends jax

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Older versions of pip do not know groups.
.venv/.pip: | .venv/bin/python
	$(PIP) "pip>=25.1"
	touch $@

.venv/.ready: setup.cfg pyproject.toml | .venv/.pip
	$(PIP) -e ".[tensorflow,diagnostics,examples]" --group test
	touch $@

.venv/.ready-all: .venv/.ready
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[tensorflow,jax,torch,diagnostics,examples]" --group test --group neighbours
	touch $@

.venv/.ready-ray: .venv/.ready-all
	$(PIP) -e ".[ray]"
	touch $@

.venv/.ready-release: | .venv/.pip
	$(PIP) --group release
	touch $@

.venv/.ready-docs: .venv/.ready
	$(PIP) --group docs
	touch $@

clean:
	rm -rf $(GENERATED) .venv build dist *.egg-info .coverage* .pytest_cache .hypothesis .mypy_cache .ruff_cache
