# shellcheck shell=bash
# Debian packages of any suite and architecture, as files; sourced, never run. They come from the mirrors that this
# machine uses anyway. Nothing is installed; apt's own lists and state, and dpkg's architectures, stay as they are.

APT=()

# apt_open FOLDER SUITE ARCHITECTURE: reads the lists of packages, kept in FOLDER. Fails, with the reason, if it cannot.
apt_open() {
	local folder="$1" suite="$2" arch="$3" sources mirrors mirror
	have apt-get || { say "\`apt-get\` is not installed"; return 1; }
	sources="$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true)"
	mirrors="$(grep -oE 'https?://[^ ]+/debian(-security)?/?( |$)' <<<"$sources" | tr -d ' ' | sort -u)"
	case "$suite" in
	*-security) mirror="$(grep -m1 'debian-security' <<<"$mirrors" || true)" ;;
	*) mirror="$(grep -m1 -v 'debian-security' <<<"$mirrors" || true)" ;;
	esac
	[ -n "$mirror" ] || { say "no Debian mirror for $suite in /etc/apt"; return 1; }
	mkdir -p "$folder"/{lists/partial,cache/archives/partial}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$folder/sources.list"
	APT=(-qq -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o Dir::State::status=/dev/null
		-o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
		-o Debug::NoLocking=1 -o "APT::Architecture=$arch" -o "APT::Architectures=$arch")
	apt-get "${APT[@]}" update || { say "apt-get update for $suite, $arch failed"; return 1; }
}

# The first choice of each direct dependency, one per line.
apt_depends() {
	apt-cache "${APT[@]}" show --no-all-versions "$1" 2>/dev/null |
		sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/^ *//; s/[ (].*//'
}

# apt_kernel PACKAGE PARTS: names of the packages of a Debian kernel, the newest where PACKAGE stands for it. From 7.x on it
# is in several; PARTS, a pattern such as `binary|modules`, says which are wanted.
apt_kernel() {
	local package="$1"
	[[ $package = linux-image-[0-9]* ]] || package="$(apt_depends "$package" | grep -m1 '^linux-image-')" || return 1
	echo "$package"
	apt_depends "$package" | grep -E "^linux-($2)-[0-9]" || true
}

# apt_unpack TREE PACKAGE...: unpacks these packages and no others.
apt_unpack() {
	local tree="$1" debs deb
	shift
	debs="$(mktemp -d "$tree.XXXXXX")"
	(cd "$debs" && apt-get "${APT[@]}" download "$@") || { rm -rf "$debs"; return 1; }
	mkdir -p "$tree"
	for deb in "$debs"/*.deb; do dpkg -x "$deb" "$tree"; done
	rm -rf "$debs"
}

# apt_unpack_all TREE PACKAGE...: unpacks these packages and what they depend on; TREE may hold the links of a merged /usr.
apt_unpack_all() {
	local tree="$1" debs deb
	shift
	debs="$(mktemp -d "$tree.XXXXXX")"
	mkdir "$debs/partial"
	apt-get "${APT[@]}" -o "Dir::Cache::archives=$debs" install --download-only --no-install-recommends -y "$@" >/dev/null ||
		{ rm -rf "$debs"; return 1; }
	for deb in "$debs"/*.deb; do dpkg --fsys-tarfile "$deb" | tar -x -C "$tree" --keep-directory-symlink; done
	rm -rf "$debs"
}
