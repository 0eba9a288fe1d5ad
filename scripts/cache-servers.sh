#!/usr/bin/env bash
# Installs the servers that the backends of the remote cache are tested with, into
# target/cache-servers: moto (S3), WsgiDAV, BuildGrid (Remote Execution API), an emulator of
# Google's storage, all from PyPI, and Azurite (Azure's storage) from npm. Versions are pinned.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

list=scripts/cache-servers.txt
azurite=3.35.0
dir=${CACHE_SERVERS:-target/cache-servers}
wanted="$(sha256sum <"$list") $azurite"
[ "$(cat "$dir/installed" 2>/dev/null)" = "$wanted" ] && exit 0

need_packages python3-venv
command -v npm >/dev/null || need_packages npm # node from elsewhere than Debian brings its own
say "installing the servers of the cache tests"
rm -rf "$dir"
/usr/bin/python3 -m venv "$dir"
"$dir/bin/pip" install -q --disable-pip-version-check --no-deps -r "$list"
npm install --prefix "$dir/npm" --silent --no-audit --no-fund --omit=optional "azurite@$azurite"
echo "$wanted" >"$dir/installed"
