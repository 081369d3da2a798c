# shellcheck shell=bash
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
# shellcheck disable=SC2034 # for those who source this
qemu_package=qemu-system-x86

say() {
	echo "$(basename "$0"): $*" >&2
}

die() {
	say "$*"
	exit 1
}

# The comment at the head of the tool is its help, and whoever sources this has it.
if [ "${1-}" = --help ]; then
	sed -n '4,/^[^#]/{/^#/!q; s/^# \{0,1\}//; p}' "$0"
	exit
fi

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

# Makes an apt state of its own in the new directory $1, with this Debian's
# repositories as they are and as source.
private_apt_init() {
	apt_options=(-qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$1/sources"
		-o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache"
		-o Acquire::Languages=none -o Acquire::Retries=3
		-o APT::Sandbox::User="$(id -un)")
	mkdir -p "$1/sources" "$1/lists/partial" "$1/cache/archives/partial"
	"$root/tools/qemu-apt-sources" "$1/sources" || exit
	private_apt_get update || die "apt-get update failed: is a Debian mirror reachable?"
}

private_apt_get() {
	apt-get "${apt_options[@]}" "$@" >&2
}

private_apt_cache() {
	apt-cache "${apt_options[@]}" "$@"
}
