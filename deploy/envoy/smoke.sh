#!/usr/bin/env bash
# Brings docker-compose.yaml up, asks it, and takes it down. Needs bash, curl and an engine (docker, or DOCKER=podman).
set -euo pipefail

usage() {
  cat <<'USAGE'
smoke.sh [--build | --no-build] [--pull missing|never] [--keep]
    Builds the images that are not there, starts everything, checks it, takes it down.
      --build, --no-build   always, never
      --pull never          start only what the machine has
      --keep                leave it running
smoke.sh --check URL [--admin URL] [--prometheus URL] [--grafana URL]
    Checks what runs already: Envoy at URL, and the others where they are named.

DOCKER is the engine (docker, or such as `sudo docker`), COMPOSE the compose command (`$DOCKER compose`, or else what is
on the path).
Images, bases and ports are the variables of .env.example, from the environment or from .env.
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra docker <<<"${DOCKER:-docker}"
build=missing pull=missing keep=no envoy='' admin='' prometheus='' grafana=''
answer='blue light reaches us from every part of the sky'
question='{"role": "user", "content": "Why is the sky blue?"}'

main() {
  options "$@"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  if [ -n "$envoy" ]; then
    check
    return
  fi
  find_compose
  if [ -f "$here/.env" ]; then load_env "$here/.env"; fi
  envoy=http://127.0.0.1:${ENVOY_PORT:-10000}
  admin=http://127.0.0.1:${ADMIN_PORT:-9902}
  prometheus=http://127.0.0.1:${PROMETHEUS_PORT:-9090}
  grafana=http://127.0.0.1:${GRAFANA_PORT:-3000}
  case ${ENVOY_IMAGE:-} in *distroless*) export ENVOY_HEALTH=${ENVOY_HEALTH:-NONE} ;; esac
  refuse_another
  build_images
  have_own_images
  trap 'leave $?' EXIT
  step "starting"
  # Not every compose command knows --pull. What it must not pull it must have.
  if [ "$pull" = never ]; then have_images; fi
  compose up -d --no-build
  wait_until_healthy
  check
  check_end
}

options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --build) build=always ;;
      --no-build) build=never ;;
      --keep) keep=yes ;;
      --pull | --check | --admin | --prometheus | --grafana)
        [ $# -ge 2 ] || { echo "smoke.sh: $1 needs a value" >&2; exit 64; }
        case $1 in
          --pull) pull=$2 ;;
          --check) envoy=${2%/} ;;
          --admin) admin=${2%/} ;;
          --prometheus) prometheus=${2%/} ;;
          --grafana) grafana=${2%/} ;;
        esac
        shift ;;
      -h | --help) usage; exit 0 ;;
      *) echo "smoke.sh: what is $1?" >&2; usage >&2; exit 64 ;;
    esac
    shift
  done
  case $pull in missing | never) ;; *) echo "smoke.sh: --pull is missing or never" >&2; exit 64 ;; esac
}

# ---- the stack ----

find_compose() {
  if [ -n "${COMPOSE:-}" ]; then
    read -ra compose <<<"$COMPOSE"
  elif "${docker[@]}" compose version >/dev/null 2>&1; then
    compose=("${docker[@]}" compose)
  elif command -v "${docker[${#docker[@]} - 1]}-compose" >/dev/null; then
    # With what stands before the engine, such as sudo.
    compose=("${docker[@]}")
    compose[${#docker[@]} - 1]+=-compose
  else
    echo "smoke.sh: neither \`${docker[*]} compose\` nor ${docker[*]}-compose is there (DOCKER, COMPOSE)" >&2
    exit 69
  fi
}

compose() {
  "${compose[@]}" -f "$here/docker-compose.yaml" "$@"
}

# What this script needs to know of .env; compose reads all of it by itself, and nothing of it is exported: keys are
# nobody's who is started here. What the environment has already stays.
load_env() {
  local line name value seen=' '
  while IFS= read -r line || [ -n "$line" ]; do
    [[ ${line%$'\r'} =~ ^[[:space:]]*(export[[:space:]]+)?([A-Z_]+)[[:space:]]*=[[:space:]]*(.*)$ ]] || continue
    name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
    case $name in
      *_PORT | *_IMAGE | BASE | RUNTIME | ENVOY_HEALTH | COMPOSE_PROJECT_NAME) ;;
      *) continue ;;
    esac
    case $value in
      \"*\"*) value=${value#\"} value=${value%%\"*} ;;
      \'*\'*) value=${value#\'} value=${value%%\'*} ;;
      '#'*) value='' ;;
      *) value=${value%%[[:space:]]#*} value=${value%"${value##*[![:space:]]}"} ;;
    esac
    # As with compose, the last line of a name counts.
    if [ -n "${!name+set}" ] && [[ $seen != *" $name "* ]]; then continue; fi
    seen+="$name "
    printf -v "$name" %s "$value"
  done <"$1"
}

# What runs under this name already is somebody's, who would lose it when this is taken down.
refuse_another() {
  local there
  if ! there=$(containers); then
    echo "smoke.sh: ${docker[*]} ps fails" >&2
    exit 69
  fi
  [ -n "$there" ] || return 0
  echo "smoke.sh: ${COMPOSE_PROJECT_NAME:-consort} is there already: \`smoke.sh --check URL\` checks it;" \
    "another COMPOSE_PROJECT_NAME, with other ports, is another one" >&2
  exit 1
}

is_there() {
  "${docker[@]}" image inspect "$1" >/dev/null 2>&1
}

own_image() { # the Dockerfile's target
  case $1 in
    provider) echo "${PROVIDER_IMAGE:-consort-provider:local}" ;;
    consort) echo "${CONSORT_IMAGE:-consort:local}" ;;
  esac
}

# By the engine itself, since compose commands differ in how they build.
build_images() {
  local target image base=()
  [ -z "${BASE:-}" ] || base+=(--build-arg "BASE=$BASE")
  [ -z "${RUNTIME:-}" ] || base+=(--build-arg "RUNTIME=$RUNTIME")
  for target in provider consort; do
    image=$(own_image "$target")
    if [ "$build" = never ] || { [ "$build" = missing ] && is_there "$image"; }; then continue; fi
    step "building $image"
    "${docker[@]}" build ${base[@]+"${base[@]}"} --target "$target" -t "$image" "$here/../.."
  done
}

# A name without a registry is nobody else's: compose would look for it at Docker Hub, and say that it may not.
have_own_images() {
  local target image
  for target in provider consort; do
    image=$(own_image "$target")
    is_there "$image" && continue
    case $pull,$image in missing,*/*) "${docker[@]}" pull "$image" && continue ;; esac
    echo "smoke.sh: there is no image $image: build it, by leaving out --no-build, or by hand (Dockerfile)" >&2
    exit 1
  done
}

have_images() {
  local image missing=''
  # The defaults are in the compose file, and only there.
  for image in $(compose config | sed -n 's/^ *image: *//p' | tr -d "\"'"); do
    is_there "$image" || missing+=" $image"
  done
  [ -z "$missing" ] || { echo "smoke.sh: --pull never, and not here:$missing" >&2; exit 1; }
}

# Of all services, or of one; by the labels that every compose command sets.
containers() {
  "${docker[@]}" ps -aq --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-consort}" \
    ${1+--filter "label=com.docker.compose.service=$1"}
}

# Each container is healthy, or runs where it has no check.
wait_until_healthy() {
  local deadline=$((SECONDS + 180)) id state waiting
  step "waiting until all are healthy"
  while true; do
    waiting=''
    for id in $(containers); do
      # podman leaves it to systemd to ask, where there is one.
      case ${docker[*]} in *podman*) "${docker[@]}" healthcheck run "$id" >/dev/null 2>&1 || true ;; esac
      state=$("${docker[@]}" inspect -f \
        '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id")
      case $state in
        *" running healthy" | *" running ") ;;
        *) waiting+="  $state"$'\n' ;;
      esac
    done
    if [ -z "$waiting" ] && [ -n "$(containers)" ]; then return; fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      printf 'smoke.sh: not healthy after 180 s:\n%s' "$waiting" >&2
      return 1
    fi
    sleep 1
  done
}

# Told to end, Consort ends by itself, with success.
check_end() {
  local id
  id=$(containers consort)
  step "its end"
  if compose stop -t 70 consort >"$work/stop" 2>&1; then
    is "$("${docker[@]}" inspect -f '{{.State.ExitCode}}' "$id")" 0 "Consort ends with 0 when it is told to"
  else
    failed "Consort can be told to end" "$(cat "$work/stop")"
  fi
  verdict
}

leave() {
  local status=$1
  trap - EXIT
  if [ "$status" != 0 ]; then
    step "what they said"
    "${docker[@]}" ps -a --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-consort}" >&2 || true
    compose logs --tail 80 >&2 || true
  fi
  if [ "$keep" = no ]; then
    step "taking it down"
    compose down -v --timeout 15 >/dev/null 2>&1 || true
  fi
  rm -rf "$work"
  exit "$status"
}

# ---- the checks ----

failures=0

step() {
  printf '== %s\n' "$*"
}

ok() {
  printf 'ok    %s\n' "$1"
}

failed() {
  printf 'FAIL  %s\n' "$1"
  [ $# -lt 2 ] || printf '%s\n' "$2" | head -c 2000 | sed 's/^/      /' || true
  failures=$((failures + 1))
}

is() { # what is, what should be, what that means
  if [ "$1" = "$2" ]; then ok "$3"; else failed "$3" "it is $1, not $2"; fi
}

has() { # a text, a part of it, what that means
  case $1 in *"$2"*) ok "$3" ;; *) failed "$3" "$1" ;; esac
}

# Asks; afterwards `code`, `head` and `body`.
ask() { # the body
  ask_at "$envoy/v1/chat/completions" -H 'content-type: application/json' -d "$1"
}

ask_at() { # a URL, further arguments of curl
  fetch "$@" >"$work/body" || true
  body=$(tr -d '\r' <"$work/body")
  fetched
}

# As `ask`; afterwards also when the first and the last piece with words in it came, in ms.
ask_stream() { # the body
  local line start
  body='' first=0 last=0 start=$(now)
  while IFS= read -r line || [ -n "$line" ]; do
    body+=${line%$'\r'}$'\n'
    case $line in
      *'"content":""'*) ;;
      *'"content":"'*)
        last=$(($(now) - start))
        [ "$first" != 0 ] || first=$last ;;
    esac
  done < <(fetch "$envoy/v1/chat/completions" -H 'content-type: application/json' -d "$1" || true)
  fetched
}

# Neither what ~/.curlrc says nor a proxy of the machine's is between.
fetch() { # arguments of curl
  rm -f "$work/head"
  curl -q -sS -N --noproxy '*' --max-time 60 -D "$work/head" "$@" 2>"$work/error"
}

fetched() {
  head=$(tr -d '\r' <"$work/head" 2>/dev/null || true)
  code=$(printf '%s\n' "$head" | sed -n 's/^HTTP[^ ]* \([0-9]*\).*/\1/p' | tail -1)
  # Of an answer that breaks off, too, it is told why.
  [ ! -s "$work/error" ] || body+=$'\n'$(cat "$work/error")
  code=${code:-000}
}

now() { # in ms
  local time=${EPOCHREALTIME:-}
  [ -n "$time" ] || time=$(date +%s.%N)             # bash before 5
  case $time in *N) time=$(perl -MTime::HiRes=time -e 'printf "%.6f", time') ;; esac   # and the date of macOS
  local whole=${time%%[.,]*} rest=${time#*[.,]}     # some locales have a comma
  echo $((whole * 1000 + 10#${rest:0:3}))
}

header() {
  printf '%s\n' "$head" | { grep -i "^$1:" || true; } | head -1 | sed 's/^[^:]*: *//'
}

# Something that takes a moment to come about.
eventually() { # a URL, a part of what it says, what that means
  local deadline=$((SECONDS + 40))
  while true; do
    ask_at "$1"
    case $body in *"$2"*) ok "$3"; return ;; esac
    [ "$SECONDS" -lt "$deadline" ] || break
    sleep 1
  done
  failed "$3" "$code $body"
}

check() {
  check_plain
  check_stream
  check_refusal
  check_others
  check_operators
  verdict
}

check_plain() {
  step "a plain question"
  ask "{\"model\": \"research-ensemble\", \"messages\": [$question]}"
  is "$code" 200 "an answer comes"
  has "$body" "$answer" "it is the judge's"
  has "$body" '"model":"research-ensemble"' "it is in the alias's name"
  has "$body" '"finish_reason":"stop"' "it is whole"
  if [[ $body =~ \"total_tokens\":\ *[1-9] ]]; then ok "it has a usage"; else failed "it has a usage" "$body"; fi
  case $(header x-ensemble-outcome) in
    full | quorum) ok "enough of the panel has answered: $(header x-ensemble-outcome)" ;;
    *) failed "enough of the panel has answered" "$head" ;;
  esac
}

check_stream() {
  local text
  step "a streaming question"
  ask_stream "{\"model\": \"research-ensemble\", \"stream\": true, \"stream_options\": {\"include_usage\": true},
        \"messages\": [$question]}"
  is "$code" 200 "an answer comes"
  has "$(header content-type)" text/event-stream "it is a stream of events"
  # Pieces have no escapes in this answer.
  text=$(printf '%s\n' "$body" | sed -n 's/^data: .*"content":"\([^"]*\)".*/\1/p' | tr -d '\n')
  has "$text" "$answer" "its pieces are the judge's answer"
  if [ "$(printf '%s\n' "$body" | grep -c '"content":"[^"]')" -ge 5 ]; then
    ok "there is more than a handful of them"
  else
    failed "there is more than a handful of them" "$body"
  fi
  if [ $((last - first)) -ge 300 ]; then
    ok "they come as they are spoken: the first after $first ms, the last after $last ms"
  else
    failed "they come as they are spoken" "the first after $first ms, the last after $last ms"
  fi
  has "$body" '"choices":[],"usage":{' "the usage comes in a piece of its own"
  is "$(printf '%s\n' "$body" | grep '^data: ' | tail -1)" "data: [DONE]" "it ends with [DONE]"
}

check_refusal() {
  step "a question that no ensemble can answer"
  ask "{\"model\": \"research-ensemble\", \"n\": 2, \"messages\": [$question]}"
  is "$code" 400 "it is refused"
  has "$body" '"param":"n"' "the refusal names the field"
}

check_others() {
  step "models that are none of Consort's"
  ask "{\"model\": \"quick\", \"messages\": [$question]}"
  is "$code" 200 "a plain model answers"
  has "$body" "Air scatters blue light" "in its own words"
  is "$(header x-ensemble-alias)" "" "Consort has no part in it"
  ask "{\"model\": \"no-such-model\", \"messages\": [$question]}"
  is "$code" 404 "an unknown one is the upstream's to refuse"
}

check_operators() {
  if [ -n "$admin" ]; then
    step "Consort's operators"
    ask_at "$admin/readyz"
    is "$code" 200 "it is ready"
    has "$body" '"kind":"redis","state":"ok"' "its limits are counted in Redis"
    ask_at "$admin/metrics"
    has "$body" 'consort_requests_total{alias="research-ensemble"' "runs are counted"
  fi
  if [ -n "$prometheus" ]; then
    step "Prometheus"
    eventually "$prometheus/api/v1/query?query=up%7Bjob%3D%22consort%22%7D" ',"1"]' "it scrapes Consort"
    eventually "$prometheus/api/v1/rules" ConsortAbsent "it has the alert rules"
    eventually "$prometheus/api/v1/query?query=sum(consort_requests_total)%20%3E%201" '"value"' "it has seen runs"
  fi
  if [ -n "$grafana" ]; then
    step "Grafana"
    eventually "$grafana/api/dashboards/uid/consort" '"title":"Consort"' "it shows the dashboard to whoever looks"
  fi
}

verdict() {
  [ "$failures" = 0 ] || { printf '%s failed\n' "$failures" >&2; return 1; }
}

main "$@"
