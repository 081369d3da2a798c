# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the tools share; sourced, never run. Sets `root`, the repository, and makes it
# the current directory, so that the tools work from anywhere.

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$root" || exit 1
tool=$(basename "$0")

# Debian's interpreter, whatever comes first in PATH: python3-pytest belongs to it.
# shellcheck disable=SC2034 # for who sources this
python=/usr/bin/python3

say() {
	echo "$tool: $*"
}

die() {
	echo "$tool: $*" >&2
	exit 1
}

# The comment at the head of the tool is its help.
print_help() {
	sed -n '4,/^[^#]/{/^#/!q; s/^# \{0,1\}//; p}' "$0"
}

# Whole seconds since $1, which came from $SECONDS, as "75 s" or "3 min 5 s".
duration() {
	local seconds=$((SECONDS - $1))
	if [ $seconds -lt 120 ]; then
		echo "$seconds s"
	else
		echo "$((seconds / 60)) min $((seconds % 60)) s"
	fi
}
