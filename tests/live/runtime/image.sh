#!/bin/bash
# image.sh REFERENCE OUT.tar: an image that holds a static busybox, and links for what the tests mount of the machine. It is in
# the OCI layout, made with tar and sha256sum: no registry, no builder.
set -euo pipefail
reference=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/usr" "$work/root/traffic" "$work/root/tmp" "$work/oci/blobs/sha256"
cp /bin/busybox "$work/root/bin/busybox"
for name in lib lib64; do ln -s "usr/$name" "$work/root/$name"; done
tar -C "$work/root" --owner=0 --group=0 --numeric-owner -cf "$work/layer" .

# FILE: becomes a blob; prints its descriptor's digest and size
blob() {
	local sum
	sum=$(sha256sum "$1" | cut -d' ' -f1)
	cp "$1" "$work/oci/blobs/sha256/$sum"
	printf '"digest":"sha256:%s","size":%d' "$sum" "$(stat -c%s "$1")"
}
layer=$(blob "$work/layer")
diff=$(sha256sum "$work/layer" | cut -d' ' -f1)
case "$(uname -m)" in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/busybox","sleep","100000"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
	"$arch" "$diff" >"$work/config"
types=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",%s},"layers":[{"mediaType":"%s.layer.v1.tar",%s}]}' \
	"$types" "$types" "$(blob "$work/config")" "$types" "$layer" >"$work/manifest"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"%s"}}]}' \
	"$types" "$(blob "$work/manifest")" "$reference" >"$work/oci/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
tar -C "$work/oci" -cf "$out" oci-layout index.json blobs
