#!/bin/sh
# Unpacks the sounds of the packages named in pieces.tsv: FOLDER/PACKAGE/... (1 GB of downloads, needs unzip and
# libglib2.0-bin). Versions used: blanket 0.7.0-4 (in Debian 13 only), lincity-ng-data 2.9~git20150314-5,
# minetest-data 5.6.1+dfsg+~1.9.0mt8+dfsg-2, supertuxkart-data 1.4+dfsg-2, ufoai-sound 2.5-2,
# unknown-horizons 2019.1-6 (all in Debian 12).
set -eu
mkdir -p "${1:?give the folder to unpack to}"
cd "$1"
for package in blanket lincity-ng-data minetest-data supertuxkart-data ufoai-sound unknown-horizons; do
    apt-get download "$package"
    mkdir -p "$package"
    dpkg-deb --fsys-tarfile "$package"_*.deb |
        tar -x -C "$package" --wildcards '*.ogg' '*.wav' '*.pk3' '*.gresource' '*/copyright' || true  # not all in each
    rm "$package"_*.deb
done
unzip -q ufoai-sound/usr/share/games/ufoai/base/0snd.pk3 -d ufoai-sound
resources=blanket/usr/share/blanket/blanket.gresource
for name in $(gresource list "$resources" | grep 'ogg$'); do
    gresource extract "$resources" "$name" > "blanket/$(basename "$name")"
done
