# SPDX-License-Identifier: MIT
#
# What the qemu-* and guest-* tools share; sourced, never run. It knows where
# things are cached and how to get a Debian source or binary package without
# touching the system's package configuration: a private apt state in the cache,
# with the system's own Debian sources turned into deb-src.
#
# VGPU_CACHE overrides the cache directory.

root=$(dirname "$(dirname "$(readlink -f "$0")")")
cache=${VGPU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vgpu}
qemu_package=qemu-system-x86

say() {
	echo "$(basename "$0"): $*" >&2
}

die() {
	say "$*"
	exit 1
}

need() {
	command -v "$1" >/dev/null || die "$1 is missing: run tools/setup"
}

# One run at a time fills the cache; others wait here for it.
lock_cache() {
	mkdir -p "$cache"
	exec 9>"$cache/.lock"
	flock 9
}

# The installed QEMU's binary version, or of its source ("source:Version").
qemu_version() {
	dpkg-query -W -f "\${${1:-Version}}" $qemu_package 2>/dev/null ||
		die "the package $qemu_package is not installed: run tools/setup"
}

# A Debian version without its epoch, which no file name needs.
file_version() {
	echo "${1#*:}"
}

# Where the prepared source of the installed QEMU lies.
qemu_dir() {
	echo "$cache/qemu-$(file_version "$(qemu_version source:Version)")"
}

# apt with state of its own below $cache/apt.
private_apt() {
	"$@" -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$cache/apt/sources" \
		-o Dir::State::Lists="$cache/apt/lists" -o Dir::Cache="$cache/apt/cache" \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User= 
}

# Fills the private apt state: this Debian's repositories, as $1 (deb or deb-src).
private_apt_update() {
	mkdir -p "$cache/apt/sources" "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
	"$root/tools/qemu-apt-sources" "$1" "$cache/apt/sources"
	private_apt apt-get update >&2 || die "apt-get update failed: is a Debian mirror reachable?"
}
