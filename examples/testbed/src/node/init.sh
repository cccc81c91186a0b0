# The first process of a node. It gives the node its own view of the machine, prints its own number outside, and
# reaps whom nobody waits for. The node lives for as long as this process, and that for as long as its stdin is
# open.
#
# init.sh NAME PERSISTENT [DISK]: the folder of what outlives a power cut, the file system of the hub's data.
set -eu
name=$1
cd "$2" # relative paths lead there even when a mount hides the way
disk=${3:-}
read -r pid _ </proc/self/stat # /proc is still the outer one

mount --make-rshared / # the kubelet's mounts have to reach its containers
mount -t proc proc /proc
if [ -n "$disk" ]; then
  mount -o loop "$disk" var/lib/yurthub
fi
for folder in etc var/lib var/log; do
  mount --rbind "$folder" "/$folder"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id

hostname "$name"
ip link set lo up
# Where pods find the hub. A dummy interface would do too, but not every kernel has it.
ip address add 169.254.2.1/32 dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward

echo "$pid"
cat >/dev/null
: # else the shell becomes cat, which reaps nobody
