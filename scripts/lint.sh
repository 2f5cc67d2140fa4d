#!/usr/bin/env bash
# lint.sh: formatting, clippy with warnings as errors, shell scripts, Kubernetes manifests.
# A tool that is not there is skipped, and the last lines say so.

. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# newest Kubernetes release whose schema deploy/ is checked against, and the package that brings it
KUBERNETES_VALIDATE=1.33.1
KUBERNETES_VERSION=1.33

skipped=()

lint_rust() {
	need_cargo
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
}

lint_shell() {
	if ! have shellcheck; then
		skipped+=("shellcheck (not installed)")
		return
	fi
	shellcheck -x -P SCRIPTDIR scripts/*.sh tests/vm/*.sh tests/live/runtime/*.sh fixtures/rules/*.sh .ci/run
}

# A Python of its own, so that nothing is installed outside the build folder.
validator() {
	local venv="$CARGO_TARGET_DIR/lint-venv"
	local stamp="$venv/kubernetes-validate-$KUBERNETES_VALIDATE"
	if [ ! -e "$stamp" ]; then
		rm -rf "$venv"
		python3 -m venv "$venv" >&2 || return 1
		"$venv/bin/pip" install --quiet --disable-pip-version-check \
			"kubernetes-validate==$KUBERNETES_VALIDATE" >&2 || return 1
		touch "$stamp"
	fi
	echo "$venv/bin/kubernetes-validate"
}

lint_deploy() {
	local validate
	if ! validate="$(validator)"; then
		skipped+=("deploy/*.yaml (could not install \`kubernetes-validate\` from PyPI)")
		return
	fi
	"$validate" --strict --quiet --kubernetes-version "$KUBERNETES_VERSION" deploy/*.yaml
}

lint_rust
lint_shell
lint_deploy

for what in "${skipped[@]}"; do
	say "SKIPPED: $what"
done
say "lint: passed"
