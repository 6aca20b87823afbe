# Sourced by install.sh here and by benches/peers/install.sh: a cache into which each thing comes whole or not at all, and jars from Maven's repository.
# shellcheck shell=bash

# What Kafka and Kafka Connect log with.
SLF4J=1.7.36

say() { printf '%s: %s\n' "$(basename "$here")" "$*"; }
fail() { say "$@" >&2; exit 1; }

# Prints the usual place of a cache.
usual_cache() { # usual_cache NAME
    printf '%s/%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$1"
}

# Makes $cache, and in it $scratch for what is not whole yet: on the same disk, so that it is moved at once. It goes when the script ends.
open_cache() {
    mkdir -p "$cache"
    scratch="$(mktemp -d "$cache/installing.XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
}

# Downloads artifacts, and all that they need to run, into DIRECTORY/libs.
download_jars() { # download_jars DIRECTORY GROUP:NAME:VERSION...
    local directory="$1" dependencies="" artifact group name version
    shift
    for artifact in "$@" "org.slf4j:slf4j-simple:$SLF4J"; do
        IFS=: read -r group name version <<<"$artifact"
        dependencies+="<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
    done
    mkdir "$directory"
    cat >"$directory/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tandem</groupId>
  <artifactId>downloaded</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>$dependencies</dependencies>
</project>
POM
    (cd "$directory" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime </dev/null)
}
