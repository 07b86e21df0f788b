#!/usr/bin/env bash
# Pins every third-party package with its hashes, once for the workspace and once for each image.
# The files name no index, so that whoever installs chooses where packages come from.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(shared gateway auth-service tenant-service patient-service notifier stack)
own=(); for p in "${packages[@]}"; do own+=(--no-emit-package "gowebbo-$p"); done
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header "${own[@]}" "$@"; }

pin requirements/dev.in $(printf '%s/pyproject.toml ' "${packages[@]}") -o requirements/dev.txt
for service in gateway auth-service tenant-service patient-service notifier; do
  printf 'hatchling\n' | pin "$service/pyproject.toml" - -c requirements/dev.txt -o "requirements/$service.txt"
done
pin requirements/mailbox.in -c requirements/dev.txt -o requirements/mailbox.txt
