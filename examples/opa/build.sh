#!/usr/bin/env bash
# Tests the policy and makes bundle.tar.gz of it, with an OPA of your own.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")"
opa=${OPA:-opa}
"$opa" test policy
"$opa" build -t wasm --prune-unused -r example-1 \
  -e authbridge/outbound/request -e authbridge/outbound/response \
  --ignore '*_test.rego' -o bundle.tar.gz policy
