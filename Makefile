.PHONY: test test-gpu lint bench bench-quick bench-gpu

test:
	python -m pytest -n auto --dist loadfile

test-gpu:
	@echo "advfeat has no GPU engine yet, so there is nothing to test on a GPU (README, 'What is not there yet')."; exit 1

lint:
	ruff check .

bench:
	python benchmarks/run.py
	python benchmarks/scaling.py
	python benchmarks/memory.py
	python benchmarks/recursion.py
	python benchmarks/reproduce.py
	python benchmarks/sweep.py

bench-quick:
	python benchmarks/run.py --quick

bench-gpu:
	python benchmarks/gpu.py
