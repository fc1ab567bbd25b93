#!/usr/bin/env bash
# Runs command lines side by side until all have ended: bash launch/together.sh [--ssh | --until_eof] COMMAND_LINE...
#
# INT, TERM and HUP reach all of them. When one fails the others get TERM; what is left JAXNN_GRACE seconds (30) after
# either gets KILL. The exit code is the first failure's. Nothing outlives this script, even where it is killed.
# --ssh: the lines are ssh's, which a signal would cut off: the end of their stdin stops them. --until_eof: the end of
# stdin is a TERM, which is what such an ssh starts at the other side.
set -euo pipefail

how='' groups=() ended=() code=0 deadline='' watcher='' grace=${JAXNN_GRACE:-30}
case "${1:-}" in
  -h | --help) sed -nE '2,/^set/s/^#( |$)//p' "${BASH_SOURCE[0]}"; exit ;;
  --ssh | --until_eof) how=$1; shift ;;
esac

send() { for group in "${groups[@]}"; do kill -s "$1" -- "-$group" 2>/dev/null || true; done; }
end() { exec 3>&-; deadline=${deadline:-$((SECONDS + grace))}; send "$1"; }

trap 'end INT' INT; trap 'end TERM' TERM; trap 'end HUP' HUP
trap 'send KILL; [ -z "$watcher" ] || kill "$watcher" || true' EXIT
pipe=$(mktemp -u); mkfifo "$pipe"; exec 3<>"$pipe" 5<&0  # 3 holds open what is the stdin of all
exec 4<"$pipe"; rm "$pipe"
set -m  # a process group each, so that what a command starts ends with it; and INT is not ignored
for line in "$@"; do
  ([ "$how" != --ssh ] || trap '' INT TERM HUP; eval "exec $line") <&4 3>&- 4<&- 5<&- &
  groups+=($!)
done
set +m; [ -z "$deadline" ] || send TERM  # which came meanwhile
exec 6> >(trap '' INT TERM HUP; exec 3>&-; read -r || send KILL)  # 6 ends with this script
exec 7>&2 2>/dev/null  # bash reports here whom a signal ended
if [ "$how" = --until_eof ]; then (while read -r; do :; done; kill -s TERM $$) <&5 3>&- 6>&- & watcher=$!; fi
while [ ${#ended[@]} -lt ${#groups[@]} ]; do
  sleep 0.1
  [ -z "$deadline" ] || [ "$SECONDS" -lt "$deadline" ] || send KILL
  for k in "${!groups[@]}"; do
    if [ -n "${ended[k]:-}" ] || kill -0 "${groups[k]}"; then continue; fi
    wait "${groups[k]}" && ended[k]=0 || ended[k]=$?
    if [ "${ended[k]}" = 0 ] || [ "$code" != 0 ]; then continue; fi
    code=${ended[k]}
    if [ -n "$deadline" ]; then continue; fi
    [ $# = 1 ] || echo "together: process $k ended with exit code $code; stopping the others" >&7
    end TERM
  done
done
exit "$code"
