"""The programs of sh that run on a device for a `RemoteSession`; a POSIX shell, mksh among them, reads them.

Pages: flock(1), setsid(1), toybox(1), whose flock takes nothing but a file descriptor.
"""

from __future__ import annotations

NO_FOLDER = 4  # exit code of LEASE when there is no room for a work folder
NOT_WHOLE = 5  # exit code of TAKE when the hash is another
# Runs a program in a session of its own and ends all of it when our end of the connection closes (stdin ends).
GUARD = """exec 3<&0
setsid "$@" </dev/null 3<&- & p=$!
{ while read -r _; do :; done <&3; kill -s KILL -- "-$p"; } >/dev/null 2>&1 & w=$!
exec 3<&-
wait "$p"; c=$?
kill "$w" 2>/dev/null
exit "$c"
"""
# Shares the device's lock (-s) or has it alone (-x), makes the work folder ($3, or a new one in $1), says which, and
# changes between the two as its input says; gives up after $2 s, or when nobody reads any more that it waits. When our
# end closes the folder goes, also when that was before it could say which (so it must not die of the closed pipe),
# unless another has taken it over: after a cut the new one waits for the old one to notice, 20 s at most. The
# descriptor is opened on the subshell: mksh closes those of `exec` for the programs it starts.
LEASE = f"""t="${{TMPDIR:-$1}}"
trap '' PIPE
lock() {{ n=0
until flock -n "$1" 9; do
[ "$((n % 5))" != 0 ] || echo busy || return 1
[ "$n" -ge "$(($2 * 5))" ] && return 1
n=$((n + 1)); sleep 0.2 || exit 1
done; }}
again() {{ n=0
while [ -d "$1" ] && [ "$n" -lt 100 ]; do n=$((n + 1)); sleep 0.2; done
rm -rf -- "$1"; mkdir -m 700 "$1"; }}
( lock "$4" "$2" || exit 1
if [ -n "$3" ]; then d="$3"; again "$d"; else d="$(mktemp -d "$t/edgekit-XXXXXX")"; fi || exit {NO_FOLDER}
echo "$$" > "$d/.held" || exit {NO_FOLDER}
echo "held $d"
while read -r how; do
[ "$how" = here ] || flock -u 9
case "$how" in -[sx]) lock "$how" "$2" ;; esac && echo held || echo late
done
[ "$(cat "$d/.held")" = "$$" ] || exit 0
rm -rf -- "$d" || {{ sleep 1; rm -rf -- "$d"; }}
) 9>>"$t/edgekit-lease-$(id -u).lock"
"""
# Writes the request ($1, unless it lies there) to $2, runs the worker, and gives its result ($3) with its hash.
RUN = """r="$3"
[ -z "$1" ] || printf %s "$1" > "$2"
shift 3
"$@" >/dev/null; c=$?
[ ! -f "$r" ] || { sha256sum -- "$r" && cat -- "$r" && rm -f -- "$r"; }
exit "$c"
"""
# Moves what arrived ($1) to its name ($2), if it is of that hash ($3).
TAKE = f"""d="$(sha256sum -- "$1")" || exit
[ "${{d%% *}}" = "$3" ] || exit {NOT_WHOLE}
mv -- "$1" "$2"
"""
