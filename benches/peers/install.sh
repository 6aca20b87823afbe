#!/usr/bin/env bash
# Puts what Tandem is measured beside into a cache: two gateways for Node, and Debezium's connector for MongoDB with Kafka Connect.
#
#   benches/peers/install.sh             installs what is missing; a second run downloads nothing
#
# The cache is ${TANDEM_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem-peers}, 700 MB. Needs npm, and a JDK with Maven. None of it is part of Tandem:
# Apollo's gateway has the Elastic License 2.0, the others Apache 2.0 and MIT.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=versions
source "$here/versions"
cache="${TANDEM_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem-peers}"
gateways="$cache/gateways-$APOLLO_GATEWAY-$APOLLO_SERVER-$HIVE_GATEWAY"
debezium="$cache/debezium-$DEBEZIUM-$CONNECT"

say() { printf 'peers: %s\n' "$*"; }

mkdir -p "$cache"
scratch="$(mktemp -d "$cache/partial.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT

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
    mkdir "$scratch/debezium"
    cat >"$scratch/debezium/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tandem</groupId>
  <artifactId>debezium-to-measure-beside</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId><version>$CONNECT</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId><version>$CONNECT</version></dependency>
    <dependency><groupId>io.debezium</groupId><artifactId>debezium-connector-mongodb</artifactId><version>$DEBEZIUM</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    (cd "$scratch/debezium" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime </dev/null)
    mv "$scratch/debezium" "$debezium"
    say "Debezium is in $debezium"
fi
