#!/usr/bin/env bash
# Puts what Tandem is measured beside into a cache: two gateways for Node, and Debezium's connector for MongoDB with Kafka Connect.
#
#   benches/peers/install.sh             installs what is missing; a second run downloads nothing
#
# The cache is ${TANDEM_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem-peers}, 700 MB. Needs npm, and a JDK with Maven. None of it is part of Tandem:
# Apollo's gateway has the Elastic License 2.0, the others Apache 2.0 and MIT.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=tests/backends/cache.sh
source "$here/../../tests/backends/cache.sh"
# shellcheck source=benches/peers/versions
source "$here/versions"
cache="${TANDEM_PEERS_CACHE:-$(usual_cache tandem-peers)}"
gateways="$cache/gateways-$APOLLO_GATEWAY-$APOLLO_SERVER-$HIVE_GATEWAY"
debezium="$cache/debezium-$DEBEZIUM-$CONNECT"

open_cache

if [[ -d "$gateways" ]]; then
    say "the gateways are there: $gateways"
else
    say "downloading two gateways for Node"
    mkdir "$scratch/gateways"
    (cd "$scratch/gateways" && npm install --no-audit --no-fund --loglevel=error \
        "@apollo/gateway@$APOLLO_GATEWAY" "@apollo/server@$APOLLO_SERVER" "@graphql-hive/gateway@$HIVE_GATEWAY" "graphql@$GRAPHQL")
    mv "$scratch/gateways" "$gateways"
    say "the gateways are in $gateways"
fi

if [[ -d "$debezium" ]]; then
    say "Debezium is there: $debezium"
else
    say "downloading Debezium $DEBEZIUM"
    download_jars "$scratch/debezium" "org.apache.kafka:connect-runtime:$CONNECT" "org.apache.kafka:connect-json:$CONNECT" \
        "io.debezium:debezium-connector-mongodb:$DEBEZIUM"
    mv "$scratch/debezium" "$debezium"
    say "Debezium is in $debezium"
fi
