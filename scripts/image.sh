#!/usr/bin/env bash
# image.sh [NAME]: a container image of the static binaries, with the first builder that works here.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="${1:-${IMAGE:-ktrace:dev}}"
builder=
for candidate in docker podman buildah; do
	if have "$candidate" && "$candidate" info >/dev/null 2>&1; then
		builder="$candidate"
		break
	fi
done
if [ -z "$builder" ]; then
	die "no image builder answers here: \`docker\`, \`podman\` and \`buildah\` are missing or not running"
fi

scripts/build-static.sh
# the context is the folder of the two binaries, so that nothing else is sent
"$builder" build -f deploy/Dockerfile -t "$name" "$CARGO_TARGET_DIR/static"
say "built image $name with $builder"
