#!/usr/bin/env bash
# Runs a configuration of this directory by func-e (https://func-e.io), with the Envoy that .envoy-version names.
#
#   deploy/envoy/func-e.sh                                  envoy.yaml
#   deploy/envoy/func-e.sh envoy-buffered.yaml              another file
#   deploy/envoy/func-e.sh envoy.yaml --log-level debug     and options of Envoy's
#
# func-e fetches that Envoy when it does not have it. ENVOY_VERSION takes another one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/envoy.yaml
case ${1:-} in
  '' | -*) ;;
  *)
    # A name of this directory, or else a path.
    if [ -f "$here/$1" ]; then config=$here/$1; else config=$1; fi
    shift
    ;;
esac
[ -f "$config" ] || { echo "func-e.sh: there is no $config" >&2; exit 64; }
command -v func-e >/dev/null || { echo "func-e.sh: func-e is not on the path; https://func-e.io has it" >&2; exit 69; }

# By the environment and not by `func-e use`, which would write the choice into the home or into .envoy-version.
ENVOY_VERSION=${ENVOY_VERSION:-$(tr -d '[:space:]' <"$here/../../.envoy-version")}
export ENVOY_VERSION
exec func-e run -c "$config" "$@"
