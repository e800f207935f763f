.PHONY: demo prove test lint format bench
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: ## submit the reverse-text RL run to a SLURM on this machine and show what happened
	@scripts/demo

prove: ## train, evaluate and measure the tiny example on this machine's GPUs
	@scripts/prove

test: ## run the tests
	@scripts/test

lint: ## check lock file, style, types and shell
	@scripts/lint

format: ## write the source as the formatter wants it
	@uv run ruff format

bench: ## measure the commands that people type, what a job adds to prime-rl, and the import hook
	@uv run python benchmarks/startup.py
	@uv run python benchmarks/job.py
	@uv run python benchmarks/importhook.py
