.PHONY: test test-gpu faults lint docs bench bench-quick bench-gpu

test:
	python -m pytest -n auto --dist loadfile

# parity of the engine, its bits, resuming; then memory errors and races in a small run, where compute-sanitizer exists
test-gpu:
	@python -c "from advfeat.kernels.gpu import device; device.connect()"
	python -m pytest -m gpu
	@for tool in memcheck racecheck; do \
		if command -v compute-sanitizer > /dev/null; then \
			compute-sanitizer --tool $$tool --error-exitcode 9 python -m pytest -m gpu tests/kernels/test_engines.py -k "nothing" || exit 1; \
		else echo "compute-sanitizer is not installed: no $$tool"; fi; done

# processes killed, disks full, folders read-only, writers that meet, workers that die, clocks that jump; Linux, as root
faults:
	@python tests/hostile/faults.py

lint:
	ruff check .

# the site: every warning is an error, and nothing is loaded from a network, neither now nor by its readers
docs:
	rm -rf docs/_build docs/gallery docs/reference/generated
	python -m sphinx -b html --nitpicky --fail-on-warning --keep-going --doctree-dir docs/_build/doctrees docs docs/_build/html
	python docs/extensions/check_site.py docs/_build/html

bench:
	python benchmarks/run.py
	python benchmarks/scaling.py
	python benchmarks/memory.py
	python benchmarks/recursion.py
	python benchmarks/reproduce.py
	python benchmarks/sweep.py
	python benchmarks/image_attacks.py

bench-quick:
	python benchmarks/run.py --quick

bench-gpu:
	python benchmarks/gpu.py
