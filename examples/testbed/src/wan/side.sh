# Holds a network namespace. When its stdin ends it takes every other process of the namespace with it: the test has
# dropped the side, or was killed.
ip link set lo up || exit 1
echo ready
read -r _

own=$(readlink /proc/$$/ns/net)
# Never the machine's own namespace, whatever went wrong.
[ -n "$own" ] && [ "$own" != "$(readlink /proc/1/ns/net)" ] || exit 1
attempts=50
while [ "$attempts" -gt 0 ]; do
  found=
  for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net")" = "$own" ] || continue
    kill -KILL "$pid" && found=yes
  done
  [ -n "$found" ] || break
  attempts=$((attempts - 1))
done
