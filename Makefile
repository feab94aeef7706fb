.PHONY: test test-gpu lint bench

test:
	python -m pytest

test-gpu:
	@echo "advfeat has no GPU engine yet, so there is nothing to test on a GPU (README, 'What is not there yet')."; exit 1

lint:
	ruff check .

bench:
	python benchmarks/reproduce.py
	python benchmarks/engine.py
