# Every target installs what it needs into .venv first. PYTHON=... names the interpreter that .venv is made from.
PY := .venv/bin/python
STAMP := .venv/.installed
export PYTHONSAFEPATH := 1

demo: $(STAMP)
	.venv/bin/kinobeam generate "a red circle moves left on a dark background" --search.method dlbs --search.num-beams 4 --search.num-candidates 2 --search.num-lookahead-steps 1 --seed 0 --output out/demo

test: $(STAMP)
	$(PY) -m pytest

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/clang-format --dry-run -Werror $$(find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

# mypy does not follow the finder of an editable install, so it reads an ordinary one.
types: $(STAMP)
	rm -rf build/types build/lib
	KINOBEAM_SKIP_BUILD=1 $(PY) -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	MYPYPATH=build/types $(PY) -m mypy -p kinobeam

bench: $(STAMP)
	.venv/bin/kinobeam bench search

gpu: $(STAMP)
	$(PY) -c "import sys, torch; torch.cuda.is_available() or sys.exit('make gpu: expected a CUDA GPU that torch can see, found none')"
	$(PY) -m pytest -m gpu

$(STAMP): pyproject.toml constraints.txt setup.py CMakeLists.txt scripts/setup_env.sh $(shell find csrc -type f)
	scripts/setup_env.sh

clean:
	rm -rf build out .mypy_cache .ruff_cache .pytest_cache .hypothesis kernels/*.so python/*.egg-info

.PHONY: demo test lint types bench gpu clean
