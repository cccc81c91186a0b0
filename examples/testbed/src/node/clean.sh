# Removes what a network and its nodes have left, by the names that are theirs alone; each may be gone already.
# Who calls it holds the lock of the network's name.
#
# clean.sh NAME FOLDER
name=$1
folder=$2

# Containers are in the node's control groups; everything else ends with the node's first process.
attempts=50
while :; do
  groups=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "$name-*" 2>/dev/null)
  [ -n "$groups" ] && [ "$attempts" -gt 0 ] || break
  find $groups -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null
  find $groups -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
  attempts=$((attempts - 1))
done

ip -o link show type veth 2>/dev/null | sed -n "s/^[0-9]*: \($name-[0-9]*\)@.*/\1/p" | while read -r link; do
  ip link delete "$link" 2>/dev/null
done
ip link delete "$name" 2>/dev/null
nft list tables netdev 2>/dev/null | sed -n "s/^table netdev \($name-[0-9]*\)$/\1/p" | while read -r table; do
  nft delete table netdev "$table" 2>/dev/null
done

rm -rf --one-file-system "$folder"
:
